# Installs BUILD to a folder of its own, builds the examples against that, by find_package and by
# pkg-config, and runs them.

file(REMOVE_RECURSE "${WORK}")
set(prefix "${WORK}/prefix")

function(run)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT result EQUAL 0)
        list(JOIN ARGN " " command)
        message(FATAL_ERROR "${command}\n${output}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${prefix}")
run("${CMAKE_COMMAND}" -S "${EXAMPLES}" -B "${WORK}/found" "-DCMAKE_PREFIX_PATH=${prefix}"
    "-DCMAKE_C_COMPILER=${C_COMPILER}" "-DCMAKE_CXX_COMPILER=${CXX_COMPILER}")
run("${CMAKE_COMMAND}" --build "${WORK}/found")
run("${EXAMPLES}/run" "${WORK}/found" san)

if(NOT PKG_CONFIG)
    return()
endif()
# The file names the folders that were configured; another prefix is given as one.
file(GLOB_RECURSE file "${prefix}/*/wsd_switch.pc")
get_filename_component(folder "${file}" DIRECTORY)
get_filename_component(library_dir "${folder}" DIRECTORY)
set(ENV{PKG_CONFIG_PATH} "${folder}")
run("${PKG_CONFIG}" --define-variable=libdir=${library_dir}
    --define-variable=includedir=${prefix}/include --cflags --libs wsd_switch)
separate_arguments(flags UNIX_COMMAND "${output}")
file(MAKE_DIRECTORY "${WORK}/packaged")
foreach(program IN ITEMS echo_server echo_client)
    run("${C_COMPILER}" -D_GNU_SOURCE "${EXAMPLES}/${program}.c" ${flags} "-Wl,-rpath,${library_dir}"
        -o "${WORK}/packaged/${program}")
endforeach()
run("${CXX_COMPILER}" -D_GNU_SOURCE "${EXAMPLES}/bulk.cpp" ${flags} "-Wl,-rpath,${library_dir}"
    -o "${WORK}/packaged/bulk")
run("${EXAMPLES}/run" "${WORK}/packaged" san)
