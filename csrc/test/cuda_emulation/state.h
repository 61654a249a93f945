/* What the parts of the emulated runtime share. */
#ifndef RLSD_TEST_CUDA_EMULATION_STATE_H_
#define RLSD_TEST_CUDA_EMULATION_STATE_H_

#include <memory>
#include <vector>

#include "cuda_runtime.h"

namespace emulation {

/* Ends the process: what it did is undefined on a device. */
[[noreturn]] void give_up(const char* why);

int number_or(const char* variable, int otherwise);
/* Says in RLSD_EMULATION_TRACE that something was enqueued. */
void trace(const char* what);

/* While RLSD_EMULATION_CAPTURE is set, as if a stream were captured into a graph: such a call would end the capture. */
void not_while_capturing(const char* call);

/* The answer of a call of the runtime: its own, or that the context is poisoned. */
cudaError_t settle(cudaError_t error);
cudaError_t poison();
bool is_poisoned();

/* The thread's device, whose primary context becomes active and this thread's: what a call does that works on a device. */
int use_device();

/* Of an ordinal's compute capability. */
int compute_major(int ordinal);

/* What a launch answers at once, cudaSuccess when it is enqueued. */
cudaError_t refusal(const Launch& grid);

/* Of the device's memory. */
size_t free_bytes();
size_t memory_bytes();

/* The allocations that the addresses lie in. Until it goes, freeing one of them ends the process. */
std::shared_ptr<void> hold(const std::vector<const void*>& addresses);

/* Start of the device allocation that holds the address; NULL when there is none. */
const void* allocation_of(const void* address, size_t* bytes);

}  // namespace emulation

#endif
