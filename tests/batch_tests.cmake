# The tests of samples and of inspect write small prepared corpora with one fixture.
foreach(name test_data_sample)
  target_sources(${name} PRIVATE batch_fixture.c)
endforeach()
