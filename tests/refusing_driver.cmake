# A driver without a device, in a folder of its own, where no other program looks for one.
add_library(refusing_driver SHARED refusing_driver.c)
set_target_properties(refusing_driver PROPERTIES OUTPUT_NAME cuda SOVERSION 1
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/refusing_driver)
target_link_libraries(refusing_driver PRIVATE soulchat_options)

# refused(NAME ENVIRONMENT PATTERN): what `soulchat doctor` says, through the CUDA runtime itself.
function(refused name environment pattern)
  add_test(NAME driver_${name} COMMAND soulchat doctor WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(driver_${name} PROPERTIES TIMEOUT 60 PASS_REGULAR_EXPRESSION "${pattern}"
    ENVIRONMENT "LD_LIBRARY_PATH=$<TARGET_FILE_DIR:refusing_driver>;${environment}")
endfunction()
if(SOULCHAT_CUDA)
  refused(old REFUSING_DRIVER=12080
          "driver supports 12.8\nno device: .*NVIDIA driver is missing or older than this build")
  refused(no_device REFUSING_INIT=100 "driver supports 13.0\nno device: .*nvidia-smi")
  refused(stub REFUSING_INIT=34 "no device: .*take its folder off LD_LIBRARY_PATH")
  refused(busy REFUSING_INIT=46 "no device: .*another program holds the GPU")
  refused(not_ready REFUSING_INIT=802 "no device: .*start nvidia-fabricmanager")
  refused(mismatch REFUSING_INIT=803 "no device: .*restart it")
endif()
