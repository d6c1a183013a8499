# Runs watchdog_scenario and checks how it ends, and how soon.
#   cmake -DLAUNCHER=... -DPROGRAM=... -DSCENARIO=... -DENDS=ON|OFF -DWORDS=... -P watchdog.cmake
string(TIMESTAMP begin %s)
execute_process(COMMAND ${LAUNCHER} ${PROGRAM} ${SCENARIO} 1.5 RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE err
                TIMEOUT 40)
string(TIMESTAMP end %s)
math(EXPR took "${end} - ${begin}")
set(all "${out}${err}")
if(ENDS)
  if(code EQUAL 0 OR took GREATER 20 OR NOT all MATCHES "${WORDS}")
    message(FATAL_ERROR "not ended as it should: code ${code} after ${took} s\n${all}")
  endif()
  if(NOT code EQUAL 6)
    message(FATAL_ERROR "exit code ${code}, not 6\n${all}")
  endif()
elseif(NOT code EQUAL 0 OR NOT all MATCHES "came to the end")
  message(FATAL_ERROR "ended though nothing hangs: code ${code} after ${took} s\n${all}")
endif()
