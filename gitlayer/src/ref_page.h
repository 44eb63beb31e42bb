// RefPage: some refs of a repository that follow each other, as packets that clients are sent.
//
// Why: a list of a million refs costs the state store half a second to read, and a copy of it costs almost
// nothing. Pages are kept between requests (src/ref_book.h), and a push makes only those new that it changes.
//
// The packets are those of ls-refs with `peel` (gitprotocol-v2(5)), "<id> <name>[ peeled:<id>]\n"; every
// other list of refs is made of them. Immutable once it is in a book. Any thread.
#pragma once

#include "gitlayer/object_id.h"

#include <kj/function.h>

#include <string>
#include <string_view>

namespace packmoor::gitlayer {

// A ref as it lies in a page.
struct RefLine {
  std::string_view packet;   // with its length and its newline
  std::string_view id, name, peeled;   // ids in hex; `peeled` empty: the id is not that of a tag
};

struct RefPage {
  // The refs behind `after` (empty: from the first) up to and with `upTo` (empty: to the last one).
  std::string after, upTo;
  std::string packets;
  bool anyPeeled = false;

  void forEach(kj::FunctionParam<bool(const RefLine&)> each) const;   // until it returns false
};

// Appends the packet of a ref; `peeled` zero: it is not a tag.
void appendRefPacket(std::string& to, std::string_view name, const ObjectId& id, const ObjectId& peeled);

}  // namespace packmoor::gitlayer
