/* libcublasLt.so.99: cuDNN wants a cuBLASLt beside it, of which cudnn_pretend.cc calls nothing. */
int cudnn_companion_is_here(void);
int cudnn_companion_is_here(void) { return 1; }
