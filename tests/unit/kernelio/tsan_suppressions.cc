// What ThreadSanitizer cannot know of a ring.
//
// liburing maps and unmaps a ring's memory by system calls of its own, which the sanitizer does not
// see. Where one thread's ring is gone and another's comes to lie at the same address, it takes the
// two for one. A ring belongs to one thread (ring.h), so nothing is hidden that could be shared.

extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:io_uring_\n"
         "race:packmoor::kernelio::Ring::Impl::prepare\n";
}
