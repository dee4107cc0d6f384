# parity DIR: this program against the numbers of the reference implementation.
set(golden_h5 golden_h5_none.c)
if(SOULCHAT_WITH_HDF5)
  set(golden_h5 golden_h5.c)
endif()
add_library(soulchat_golden STATIC golden.c golden_safetensors.c ${golden_h5})
target_link_libraries(soulchat_golden PUBLIC soulchat_model soulchat_hdf5 PRIVATE soulchat_options)
target_include_directories(soulchat_golden PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
if(TARGET test_data_seq)
  target_sources(test_data_seq PRIVATE ref_positions.c)
  target_link_libraries(test_data_seq PRIVATE soulchat_golden)
endif()

add_executable(parity parity.c parity_bf16.c parity_case.c ref_positions.c glm_look.c)
set_target_properties(parity PROPERTIES LINKER_LANGUAGE CXX
                      RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(parity PRIVATE soulchat_golden soulchat_data soulchat_ref PkgConfig::jansson
                      soulchat_options)

# Skipped where the build has no such device: the emulated one runs the CUDA backend's kernels.
function(parity_passes name)
  add_test(NAME parity_chatglm_tiny${name} COMMAND parity tests/golden/chatglm-tiny ${ARGN}
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(parity_chatglm_tiny${name} PROPERTIES TIMEOUT 900 SKIP_RETURN_CODE 77)
endfunction()
parity_passes("" --device cpu)
parity_passes(_f64 --device ref)
parity_passes(_emu --device emu)
# bf16 against PyTorch's bf16: by the reference operators, rounding where the contract says, and by
# the CUDA backend's kernels.
parity_passes(_bf16_ref --device ref --dtype bf16)
parity_passes(_bf16_ref_grads --device ref --dtype bf16 --grad-dtype bf16)
parity_passes(_bf16_emu --device emu --dtype bf16)
parity_passes(_bf16_emu_grads --device emu --dtype bf16 --grad-dtype bf16)

# A folder that is not what it should be: one line that says why.
function(parity_refuses name message)
  add_test(NAME parity_refuses_${name} COMMAND parity ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(parity_refuses_${name} PROPERTIES PASS_REGULAR_EXPRESSION "${message}")
endfunction()
parity_refuses(missing_folder "^parity: [^\n]*no/such/folder[^\n]*\n$" no/such/folder)
parity_refuses(folder_without_model "^parity: [^\n]*config.json[^\n]*\n$" tests)
parity_refuses(unknown_option "^usage: parity DIR" tests/golden/chatglm-tiny --fast)
parity_refuses(unknown_device "^usage: parity DIR" tests/golden/chatglm-tiny --device gpu)
parity_refuses(unknown_dtype "^usage: parity DIR" tests/golden/chatglm-tiny --dtype f17)
parity_refuses(cpu_bf16 "^SKIP: [^\n]*cpu backend computes in f32\n$" tests/golden/chatglm-tiny
               --dtype bf16)
