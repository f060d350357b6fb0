# cmake -DPROGRAM=.. -DDOCUMENT=example|man -DCOMMITTED=FILE -P: fails unless both are the same.
execute_process(COMMAND ${PROGRAM} --${DOCUMENT} OUTPUT_VARIABLE generated RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${PROGRAM} --${DOCUMENT} failed: ${status}")
endif()
file(READ ${COMMITTED} committed)
if(NOT generated STREQUAL committed)
  message(FATAL_ERROR "${COMMITTED} is not what the option table says; renew it with\n"
    "  ${PROGRAM} --${DOCUMENT} > ${COMMITTED}")
endif()
