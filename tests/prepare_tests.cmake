# The tests of whole preparations set them up with one fixture.
foreach(name test_data_inspect test_data_plan test_data_prepare test_data_resume)
  if(TARGET ${name})
    target_sources(${name} PRIVATE prepare_fixture.c)
  endif()
endforeach()
