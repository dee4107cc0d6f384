# The operator tests: one case table, run on every backend against the float64 reference.
add_library(soulchat_ops_testing STATIC ops_harness.c ops_check.c)
target_link_libraries(soulchat_ops_testing PUBLIC soulchat_ref soulchat_testing
                      PRIVATE soulchat_options)
file(GLOB ops_tests CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} test_kernels_ops*.c)
foreach(file ${ops_tests})
  get_filename_component(name ${file} NAME_WE)
  target_link_libraries(${name} PRIVATE soulchat_ops_testing)
  if(NOT SOULCHAT_SANITIZE) # sanitizers want to watch the memory themselves
    set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT SOULCHAT_EMU_GUARD=1)
  endif()
endforeach()
