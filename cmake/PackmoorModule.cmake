# packmoor_or_empty(VARIABLE): gives a list of sources that is empty one file with nothing in it,
# so that a target may be declared before its first source.
function(packmoor_or_empty variable)
  if(NOT ${variable})
    set(empty ${CMAKE_BINARY_DIR}/empty.cc)
    if(NOT EXISTS ${empty})
      file(WRITE ${empty} "")
    endif()
    set(${variable} ${empty} PARENT_SCOPE)
  endif()
endfunction()

# packmoor_module(NAME DEPENDS module... EXTERNAL library... [PROTO file...] [CAPNP file...])
#
# Declares one module of the layering in ARCHITECTURE.md: a static library packmoor_NAME of
# NAME/src/*.cc whose public headers are NAME/include/NAME/*.h. DEPENDS names the modules below
# it and nothing else is on its include path. Each public header must compile by itself (target
# all_verify_interface_header_sets).
# PROTO: protobuf schemas below NAME, generated to <NAME/file.pb.h>; CAPNP likewise <NAME/file.capnp.h>.
function(packmoor_module name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;EXTERNAL;PROTO;CAPNP" ${ARGN})
  set(target packmoor_${name})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/*.cc)
  file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/include/${name}/*.h)
  packmoor_or_empty(sources)
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/include
                                       PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_sources(${target} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_CURRENT_SOURCE_DIR}/include
                                  FILES ${headers})
  set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON LINKER_LANGUAGE CXX)
  list(TRANSFORM ARG_DEPENDS PREPEND packmoor_)
  target_link_libraries(${target} PUBLIC ${ARG_DEPENDS} ${ARG_EXTERNAL})

  if(ARG_PROTO OR ARG_CAPNP)
    set(out ${CMAKE_CURRENT_BINARY_DIR}/generated/${name})
    file(MAKE_DIRECTORY ${out})
    set(generated)
    foreach(file ${ARG_PROTO})
      get_filename_component(stem ${file} NAME_WE)
      add_custom_command(
        OUTPUT ${out}/${stem}.pb.cc ${out}/${stem}.pb.h
        COMMAND protobuf::protoc --cpp_out=${out} -I ${CMAKE_CURRENT_SOURCE_DIR}/schema
                ${CMAKE_CURRENT_SOURCE_DIR}/${file}
        DEPENDS ${file} VERBATIM)
      list(APPEND generated ${out}/${stem}.pb.cc)
    endforeach()
    foreach(file ${ARG_CAPNP})
      get_filename_component(stem ${file} NAME_WE)
      add_custom_command(
        OUTPUT ${out}/${stem}.capnp.c++ ${out}/${stem}.capnp.h
        COMMAND capnp compile -oc++:${out} --src-prefix=${CMAKE_CURRENT_SOURCE_DIR}/schema
                ${CMAKE_CURRENT_SOURCE_DIR}/${file}
        DEPENDS ${file} VERBATIM)
      list(APPEND generated ${out}/${stem}.capnp.c++)
    endforeach()
    add_library(${target}_schema STATIC ${generated})
    target_compile_options(${target}_schema PRIVATE -w)
    target_include_directories(${target}_schema SYSTEM PUBLIC ${CMAKE_CURRENT_BINARY_DIR}/generated
                                                PRIVATE ${out})
    if(ARG_PROTO)
      target_link_libraries(${target}_schema PUBLIC protobuf::libprotobuf)
    endif()
    if(ARG_CAPNP)
      target_link_libraries(${target}_schema PUBLIC CapnProto::capnp-rpc)
    endif()
    target_link_libraries(${target} PUBLIC ${target}_schema)
  endif()
endfunction()

# Headers that are slow to parse and used in nearly every file of a target.
function(packmoor_precompile target)
  target_precompile_headers(${target} PRIVATE <kj/async.h> <kj/debug.h> <kj/vector.h> <kj/map.h>
                            <map> <memory> <string> <vector> ${ARGN})
endfunction()
