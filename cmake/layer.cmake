# soulchat_layer(NAME LINK targets... [LEAVE_OUT regexes...]): the static library soulchat_NAME from
# NAME/**.c, without the files that match.
#
# Includes are written "layer/file.h". Each layer's own folder is linked into a directory of its
# own under the build tree, and only that directory is exported, so a layer finds the headers of
# the layers it links to and no others: an upward include does not compile.
function(soulchat_layer name)
  cmake_parse_arguments(ARG "" "" "LINK;LEAVE_OUT" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS
       ${CMAKE_SOURCE_DIR}/${name}/*.c ${CMAKE_SOURCE_DIR}/${name}/*.cc
       ${CMAKE_SOURCE_DIR}/${name}/cpu/*.c)
  foreach(pattern ${ARG_LEAVE_OUT})
    list(FILTER sources EXCLUDE REGEX "${pattern}")
  endforeach()
  set(include_dir ${CMAKE_BINARY_DIR}/include/${name})
  file(MAKE_DIRECTORY ${include_dir})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${name} ${include_dir}/${name} SYMBOLIC)
  add_library(soulchat_${name} STATIC ${sources})
  set_target_properties(soulchat_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(soulchat_${name} PUBLIC ${include_dir})
  target_link_libraries(soulchat_${name} PUBLIC ${ARG_LINK} PRIVATE soulchat_options)
  if(name STREQUAL "kernels")
    target_compile_options(soulchat_kernels PRIVATE -O3 $<$<BOOL:${SOULCHAT_NATIVE}>:-march=native>)
  endif()
endfunction()
