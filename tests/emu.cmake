# The emulator of the CUDA language, tested with kernels of its own.
add_executable(test_emu test_emu.cc ${CMAKE_SOURCE_DIR}/kernels/emu/emu.cc
                        ${CMAKE_SOURCE_DIR}/kernels/emu/fiber.cc
                        ${CMAKE_SOURCE_DIR}/kernels/emu/launch_emu.cc
                        ${CMAKE_SOURCE_DIR}/kernels/emu/guard.cc)
target_compile_definitions(test_emu PRIVATE SOULCHAT_EMU)
target_compile_options(test_emu PRIVATE -Wno-missing-field-initializers -Wno-unknown-pragmas)
set_target_properties(test_emu PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(test_emu PRIVATE soulchat_testing soulchat_kernels soulchat_options)
add_test(NAME test_emu COMMAND test_emu)

# Its memory, closed to the host as a card's is.
add_executable(emu_guard emu_guard.c)
set_target_properties(emu_guard PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(emu_guard PRIVATE soulchat_testing soulchat_kernels soulchat_options)
add_test(NAME emu_guard COMMAND emu_guard)
