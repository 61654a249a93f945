/* Loaded before a program (LD_PRELOAD): its threads have musl's stacks of 128 KiB, unless they ask
 * for others. */
#define _GNU_SOURCE
#include <pthread.h>

__attribute__((constructor)) static void shrink(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 << 10);
  pthread_setattr_default_np(&attributes);
  pthread_attr_destroy(&attributes);
}
