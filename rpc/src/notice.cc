#include "rpc/notice.h"

#include <kj/debug.h>

namespace packmoor::rpc {

void notify(const NoticeSink& sink, NoticeLevel level, kj::StringPtr sentence) {
  if (sink) {
    sink(level, sentence);
  } else if (level == NoticeLevel::kWarning) {
    KJ_LOG(WARNING, sentence);
  } else {
    KJ_LOG(INFO, sentence);
  }
}

}  // namespace packmoor::rpc
