# Devices whose calls fail one by one.
foreach(name test_kernels_dev_gpu softgpu_host softgpu_dev)
  if(TARGET ${name})
    target_sources(${name} PRIVATE use_device.c)
  endif()
endforeach()
