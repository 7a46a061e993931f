# Installs BUILD to a folder of its own and builds the program in consumer/ against that, by
# find_package and, where it is installed, by pkg-config.

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

run("${CMAKE_COMMAND}" -S "${CONSUMER}" -B "${WORK}/consumer" "-DCMAKE_PREFIX_PATH=${prefix}"
    "-DCMAKE_C_COMPILER=${C_COMPILER}")
run("${CMAKE_COMMAND}" --build "${WORK}/consumer")
run("${WORK}/consumer/with_shared")
run("${WORK}/consumer/with_static")

if(NOT PKG_CONFIG)
    return()
endif()
# The file names the folders that were configured; another prefix is given as one.
file(GLOB_RECURSE file "${prefix}/*/wsdirect.pc")
get_filename_component(folder "${file}" DIRECTORY)
get_filename_component(library_dir "${folder}" DIRECTORY)
set(ENV{PKG_CONFIG_PATH} "${folder}")
run("${PKG_CONFIG}" --define-variable=libdir=${library_dir}
    --define-variable=includedir=${prefix}/include --cflags --libs wsdirect)
separate_arguments(flags UNIX_COMMAND "${output}")
run("${C_COMPILER}" "${CONSUMER}/main.c" ${flags} "-Wl,-rpath,${library_dir}"
    -o "${WORK}/with_pkg_config")
run("${WORK}/with_pkg_config")
