# parity DIR: this program against the numbers of the reference implementation.
set(golden_h5 golden_h5_none.c)
if(SOULCHAT_WITH_HDF5)
  set(golden_h5 golden_h5.c)
endif()
add_executable(parity parity.c parity_case.c golden.c golden_safetensors.c ${golden_h5})
set_target_properties(parity PROPERTIES LINKER_LANGUAGE CXX
                      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(parity PRIVATE soulchat_model soulchat_data soulchat_ref soulchat_hdf5
                      soulchat_options)
foreach(device cpu ref)
  set(name parity_chatglm_tiny)
  if(device STREQUAL "ref")
    set(name parity_chatglm_tiny_f64)
  endif()
  add_test(NAME ${name} COMMAND parity tests/golden/chatglm-tiny --device ${device}
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300)
endforeach()

# A folder that is not what it should be: one line that says why.
function(parity_refuses name message)
  add_test(NAME parity_refuses_${name} COMMAND parity ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(parity_refuses_${name} PROPERTIES PASS_REGULAR_EXPRESSION "${message}")
endfunction()
parity_refuses(missing_folder "^parity: [^\n]*no/such/folder[^\n]*\n$" no/such/folder)
parity_refuses(folder_without_model "^parity: [^\n]*config.json[^\n]*\n$" tests)
parity_refuses(unknown_option "^usage: parity DIR" tests/golden/chatglm-tiny --fast)
parity_refuses(unknown_device "^usage: parity DIR" tests/golden/chatglm-tiny --device gpu)
