# The tests of samples and of inspect write small prepared corpora with one fixture.
foreach(name test_data_sample test_data_inspect)
  if(TARGET ${name})
    target_sources(${name} PRIVATE batch_fixture.c)
  endif()
endforeach()
