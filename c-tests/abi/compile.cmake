# Compiles SOURCE with COMPILER as STANDARD; for header_is_clean once per order of the headers.

if(NOT COMPILER OR COMPILER MATCHES "NOTFOUND$")
    message("skipped: this compiler is not installed")
    return()
endif()

set(flags "-std=${STANDARD}" -Wall -Wextra -Wpedantic -Werror -fsyntax-only "-I${INCLUDE}")

function(compile)
    execute_process(COMMAND "${COMPILER}" ${flags} ${ARGN} "${SOURCE}"
        RESULT_VARIABLE result ERROR_VARIABLE errors OUTPUT_VARIABLE errors)
    if(NOT result EQUAL 0)
        list(JOIN ARGN " " how)
        message(FATAL_ERROR "${COMPILER} ${STANDARD} ${how}\n${errors}")
    endif()
endfunction()

if(NOT CASE STREQUAL "header_is_clean")
    compile()
    return()
endif()

set(headers wsdirect.h sys/socket.h netinet/in.h errno.h)
set(count 0)
foreach(first IN LISTS headers)
    foreach(second IN LISTS headers)
        foreach(third IN LISTS headers)
            foreach(fourth IN LISTS headers)
                set(order ${first} ${second} ${third} ${fourth})
                list(REMOVE_DUPLICATES order)
                list(LENGTH order length)
                if(length EQUAL 4)
                    compile("-DFIRST=<${first}>" "-DSECOND=<${second}>" "-DTHIRD=<${third}>"
                        "-DFOURTH=<${fourth}>")
                    math(EXPR count "${count} + 1")
                endif()
            endforeach()
        endforeach()
    endforeach()
endforeach()
if(NOT count EQUAL 24)
    message(FATAL_ERROR "only ${count} of the 24 orders were compiled")
endif()
