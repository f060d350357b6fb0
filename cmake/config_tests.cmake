# proxy.conf.example and docs/man/proxy.conf.5.scd are generated from the option table; these tests
# prove that the committed files are what the table says today. To renew them:
#   sallyport-options --example > proxy.conf.example
#   sallyport-options --man > docs/man/proxy.conf.5.scd
foreach(pair example:proxy.conf.example man:docs/man/proxy.conf.5.scd)
  string(REGEX MATCH "^[a-z]+" document ${pair})
  string(REGEX REPLACE "^[a-z]+:" "" file ${pair})
  add_test(NAME docs/options-${document} COMMAND ${CMAKE_COMMAND}
    -DPROGRAM=$<TARGET_FILE:sallyport-options> -DDOCUMENT=${document}
    -DCOMMITTED=${CMAKE_SOURCE_DIR}/${file} -P ${CMAKE_SOURCE_DIR}/cmake/compare_document.cmake)
  set_tests_properties(docs/options-${document} PROPERTIES LABELS docs TIMEOUT 60)
endforeach()

# docs/compatibility.md is made from the tests. To renew it: scripts/compatibility.py
find_program(SALLYPORT_PYTHON NAMES /usr/bin/python3 python3 NO_CACHE)
add_test(NAME docs/compatibility
  COMMAND ${SALLYPORT_PYTHON} ${CMAKE_SOURCE_DIR}/scripts/compatibility.py --check)
set_tests_properties(docs/compatibility PROPERTIES LABELS docs TIMEOUT 60)

# scripts/test.sh runs two trees at once: `ctest -L sanitize` and `-LE sanitize` tell them apart.
if(SALLYPORT_SANITIZE)
  set_property(DIRECTORY APPEND PROPERTY LABELS sanitize)
endif()

# Format, headers that compile alone, shell scripts and more: see the script. Once is enough.
if(NOT SALLYPORT_SANITIZE)
  add_test(NAME checks COMMAND ${CMAKE_SOURCE_DIR}/scripts/check.sh)
  set_tests_properties(checks PROPERTIES LABELS docs TIMEOUT 300)
endif()
