# End-to-end tests: tests/e2e/test_NAME.py is one ctest. slow_ ones have a label of their own.
find_program(SALLYPORT_PYTHON NAMES /usr/bin/python3 python3 NO_CACHE)
file(GLOB e2e_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/e2e/test_*.py)
foreach(source ${e2e_sources})
  get_filename_component(name ${source} NAME_WE)
  string(REPLACE test_ "" short ${name})
  add_test(NAME e2e/${short}
    COMMAND ${SALLYPORT_PYTHON} -m pytest -q -p no:cacheprovider --tb=short ${source})
  set(labels e2e)
  if(short MATCHES "^slow_")
    list(APPEND labels slow)
  endif()
  set_tests_properties(e2e/${short} PROPERTIES LABELS "${labels}" TIMEOUT 900
    ENVIRONMENT "SALLYPORT_BUILD=${CMAKE_BINARY_DIR};PYTHONDONTWRITEBYTECODE=1;SALLYPORT_TEST_KIND=$<IF:$<BOOL:${SALLYPORT_SANITIZE}>,sanitize,plain>")
endforeach()

# What tests preload into a proxy, and a client of its own.
add_library(wallclock MODULE ${CMAKE_CURRENT_LIST_DIR}/e2e/wallclock.c)
set_target_properties(wallclock PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
add_executable(libssh-client ${CMAKE_CURRENT_LIST_DIR}/e2e/libssh_client.c)
target_link_libraries(libssh-client PRIVATE PkgConfig::LIBSSH)
set_target_properties(libssh-client PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
