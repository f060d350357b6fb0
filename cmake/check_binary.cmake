# cmake -DREADELF=.. -DPROGRAM=.. -DWITHOUT=REGEX -P: fails when a program is not hardened, or maps
# a library that it has no use for.
function(read_elf out option)
  execute_process(COMMAND ${READELF} ${option} -W ${PROGRAM} OUTPUT_VARIABLE text
    RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${READELF} ${option} ${PROGRAM} failed")
  endif()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

function(expect what text regex)
  if(NOT text MATCHES "${regex}")
    message(SEND_ERROR "${PROGRAM}: ${what}")
  endif()
endfunction()

function(refuse what text regex)
  if(text MATCHES "${regex}")
    message(SEND_ERROR "${PROGRAM}: ${what}: ${CMAKE_MATCH_0}")
  endif()
endfunction()

read_elf(header -h)
read_elf(segments -l)
read_elf(dynamic -d)
expect("no position independent executable" "${header}" "Type:[ ]+DYN")
expect("no RELRO" "${segments}" "GNU_RELRO")
expect("not all symbols are bound at the start" "${dynamic}" "BIND_NOW|Flags:.* NOW")
expect("the stack is executable" "${segments}" "GNU_STACK[ x0-9a-f]+ RW ")
refuse("a segment is writable and executable" "${segments}" "LOAD[ x0-9a-f]+ RWE ")
refuse("a path for libraries" "${dynamic}" "\\((RPATH|RUNPATH)\\)")
refuse("a library without use" "${dynamic}" "\\[(${WITHOUT})[^]]*\\]")
