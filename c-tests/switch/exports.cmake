# The library exports the functions of its header and nothing else, under the name that programs are
# linked against.

execute_process(COMMAND nm -D --defined-only --format=posix "${LIBRARY}"
    RESULT_VARIABLE result OUTPUT_VARIABLE listing)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "nm (package binutils) failed for ${LIBRARY}")
endif()
string(REGEX MATCHALL "[^\n]+" lines "${listing}")
set(exported)
foreach(line IN LISTS lines)
    string(REGEX REPLACE " .*$" "" name "${line}")
    list(APPEND exported "${name}")
endforeach()

file(STRINGS "${HEADER}" lines REGEX "^[a-z].*[ *]wsd_[a-z0-9_]+\\(")
set(declared)
foreach(line IN LISTS lines)
    string(REGEX MATCH "(wsd_[a-z0-9_]+)\\(" name "${line}")
    list(APPEND declared "${CMAKE_MATCH_1}")
endforeach()
list(SORT exported)
list(SORT declared)
list(LENGTH declared count)
if(count LESS 28 OR NOT exported STREQUAL declared)
    message(FATAL_ERROR "exported: ${exported}\ndeclared: ${declared}")
endif()

execute_process(COMMAND readelf -d -W "${LIBRARY}" OUTPUT_VARIABLE dynamic)
if(NOT dynamic MATCHES "soname: \\[libwsd_switch\\.so\\.${SOVERSION}\\]")
    message(FATAL_ERROR "${dynamic}")
endif()
