# The tests of samples, of inspect and of shards write small prepared corpora with one fixture.
foreach(name test_data_sample test_data_inspect test_data_shard)
  if(TARGET ${name})
    target_sources(${name} PRIVATE batch_fixture.c)
  endif()
endforeach()
