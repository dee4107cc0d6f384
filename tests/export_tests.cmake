# The golden model and its checkpoints, for two tests.
foreach(name test_model_export test_model_hf_checkpoint)
  target_sources(${name} PRIVATE export_fixture.c)
endforeach()
