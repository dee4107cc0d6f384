# End-to-end tests: the program as its user runs it, over the bundled sample.
if(NOT SOULCHAT_WITH_HDF5)
  return()
endif()
foreach(name resume ranks launch threads errors memory emu emu_bits generate guard signals kill)
  add_test(NAME e2e_${name}
           COMMAND bash ${CMAKE_SOURCE_DIR}/tests/e2e/${name}.sh
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(e2e_${name} PROPERTIES TIMEOUT 1200 SKIP_RETURN_CODE 77
                       ENVIRONMENT "SOULCHAT=$<TARGET_FILE:soulchat>;OMP_WAIT_POLICY=passive")
endforeach()
# The plain build shows that bits are the same, over the steps of a run; sanitizers look at memory.
if(SOULCHAT_SANITIZE)
  foreach(name emu emu_bits)
    set_property(TEST e2e_${name} APPEND PROPERTY ENVIRONMENT EMU_STEPS=2)
  endforeach()
endif()
