# What `make install` puts where (CONTRACT: /usr/sbin, /usr/libexec/sallyport, /usr/bin, man pages,
# completions, units, /etc/sallyport/proxy.conf). Configure with -DCMAKE_INSTALL_PREFIX=/usr for an
# installation of the system; other prefixes work, the configuration is in /etc/sallyport always.
install(TARGETS sallyportd RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
install(TARGETS sallyctl RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS sallyport-ssh sallyport-rdp sallyport-nla
  RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/sallyport)
install(TARGETS sallyport-pam RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/sallyport)

# Man pages: docs/man/NAME.SECTION.scd, when scdoc is there.
find_program(SCDOC scdoc)
file(GLOB man_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/docs/man/*.scd)
if(SCDOC)
  set(man_pages "")
  foreach(source ${man_sources})
    get_filename_component(page ${source} NAME)
    string(REGEX REPLACE "\\.scd$" "" page ${page})
    string(REGEX MATCH "[0-9]$" section ${page})
    set(output ${CMAKE_BINARY_DIR}/man/${page})
    add_custom_command(OUTPUT ${output}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/man
      COMMAND sh -c "${SCDOC} < ${source} > ${output}" DEPENDS ${source} VERBATIM)
    list(APPEND man_pages ${output})
    install(FILES ${output} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
  endforeach()
  add_custom_target(man ALL DEPENDS ${man_pages})
else()
  message(STATUS "scdoc not found: no man pages")
endif()

# Shell completions: control/cli/completion/, told apart by name.
file(GLOB completions CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/control/cli/completion/*)
foreach(file ${completions})
  get_filename_component(name ${file} NAME)
  if(name MATCHES "\\.fish$")
    install(FILES ${file} DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
  elseif(name MATCHES "^_|zsh")
    install(FILES ${file} DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _sallyctl)
  else()
    install(FILES ${file} DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
      RENAME sallyctl)
  endif()
endforeach()

# systemd: the unit names the programs by their path, so it follows the prefix.
file(READ ${CMAKE_SOURCE_DIR}/scripts/systemd/sallyport.service unit)
string(REPLACE "/usr/sbin/sallyportd" "${CMAKE_INSTALL_FULL_SBINDIR}/sallyportd" unit "${unit}")
file(WRITE ${CMAKE_BINARY_DIR}/sallyport.service "${unit}")
install(FILES ${CMAKE_BINARY_DIR}/sallyport.service DESTINATION lib/systemd/system)
install(FILES scripts/systemd/sallyport.sysusers DESTINATION lib/sysusers.d RENAME sallyport.conf)

install(FILES proxy.conf.example DESTINATION ${CMAKE_INSTALL_DOCDIR})
# The example is a valid configuration that says nothing but defaults. One that exists is kept.
install(CODE "
  set(conf \"\$ENV{DESTDIR}/etc/sallyport/proxy.conf\")
  if(EXISTS \"\${conf}\")
    message(STATUS \"Kept: \${conf}\")
  else()
    file(INSTALL \"${CMAKE_SOURCE_DIR}/proxy.conf.example\" DESTINATION \"/etc/sallyport\"
      RENAME proxy.conf) # puts DESTDIR in front by itself
  endif()")
