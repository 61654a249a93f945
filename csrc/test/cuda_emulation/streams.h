#ifndef RLSD_TEST_CUDA_EMULATION_STREAMS_H_
#define RLSD_TEST_CUDA_EMULATION_STREAMS_H_

#include <functional>

namespace emulation {

struct Stream;
Stream* make_stream(int device);
/* In the stream's order (NULL: the default stream's, which the devices share). */
void enqueue(Stream* stream, std::function<void()> work);
/* A kernel or a copy: fibers have the device to themselves. */
void alone(const std::function<void()>& work);
void wait_for(Stream* stream);
void wait_for_device(int device);

}  // namespace emulation

#endif
