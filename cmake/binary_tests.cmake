# The programs are hardened, and map the libraries that are their business and no others: the daemon
# parses no SSH, relays know no database. Sanitizers bring segments and libraries of their own.
find_program(READELF readelf)
if(READELF AND NOT SALLYPORT_SANITIZE AND NOT SALLYPORT_FUZZ)
  set(export_pair "")
  if(SALLYPORT_HAS_EXPORT)
    set(export_pair "sallyport-export:libssh|libsqlite|libevent|libjansson|libX11")
  endif()
  foreach(pair ${export_pair} "sallyportd:libssh|libzstd|libncurses" "sallyport-ssh:libsqlite|libjansson|libcrypt\\."
      "sallyctl:libssh|libsqlite|libevent" "sallyport-nla:libssh|libsqlite|libjansson|libcrypt\\."
      "sallyport-pam:libssh|libsqlite|libevent|libjansson"
      "sallyport-play:libssh|libsqlite|libjansson|libfreerdp|libwinpr")
    string(REGEX MATCH "^[a-z-]+" program "${pair}")
    string(REGEX REPLACE "^[a-z-]+:" "" without "${pair}")
    add_test(NAME docs/binary-${program} COMMAND ${CMAKE_COMMAND} -DREADELF=${READELF}
      -DPROGRAM=$<TARGET_FILE:${program}> "-DWITHOUT=${without}"
      -P ${CMAKE_SOURCE_DIR}/cmake/check_binary.cmake)
    set_tests_properties(docs/binary-${program} PROPERTIES LABELS docs TIMEOUT 60)
  endforeach()
endif()
