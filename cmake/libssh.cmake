# Debian 12's libssh 0.10.6 had holes that a proxy is exposed to, and pkg-config does not tell the
# repaired package from the others: dpkg does. A libssh from elsewhere is its builder's business.
set(SALLYPORT_LIBSSH_MIN 0.10.6-0+deb12u3) # scripts/deps.sh has it too
find_program(DPKG_QUERY dpkg-query)
if(DPKG_QUERY AND NOT CMAKE_CROSSCOMPILING AND LIBSSH_LIBDIR MATCHES "^/usr/lib")
  execute_process(COMMAND ${DPKG_QUERY} -W -f "\${Version}\n" libssh-4
    OUTPUT_VARIABLE libssh_packages RESULT_VARIABLE status ERROR_QUIET)
  string(REGEX MATCHALL "[^\n]+" libssh_packages "${libssh_packages}") # one an architecture
  foreach(version ${libssh_packages})
    execute_process(COMMAND dpkg --compare-versions ${version} lt ${SALLYPORT_LIBSSH_MIN}
      RESULT_VARIABLE status)
    if(status EQUAL 0)
      message(FATAL_ERROR "libssh-4 ${version} has known holes that strangers reach. "
        "Sallyport needs ${SALLYPORT_LIBSSH_MIN} or newer, from Debian's security updates:\n"
        "  sudo apt-get update && sudo apt-get install libssh-4 libssh-dev")
    endif()
  endforeach()
endif()
