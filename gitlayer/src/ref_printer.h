// Refs as pkt-lines, in slices: the advertisement of protocols 0 and 1, and the answer to ls-refs.
//
// Why: a repository may have hundreds of thousands of refs. A slice reads some, prints them and
// remembers the last name; nothing is ever built whole. print() runs on a worker.
#pragma once

#include "gitlayer/repository.h"
#include "upload_request.h"

#include <string>

namespace packmoor::gitlayer {

class RefPrinter {
 public:
  // Protocols 0 and 1. `capabilities` follow the first ref.
  RefPrinter(RepositoryView& view, std::string capabilities);
  // Protocol 2's ls-refs; `request` is finished.
  RefPrinter(RepositoryView& view, ListRequest request);

  // Appends pkt-lines of about `bytes`. True: there is more. The flush is the caller's.
  bool print(std::string& out, size_t bytes);

 private:
  void printHead(std::string& out);
  void printRef(std::string& out, const Ref& ref);
  void line(std::string& out, std::string text);

  RepositoryView& view_;
  bool v2_;
  std::string capabilities_;     // protocols 0 and 1: not yet printed
  ListRequest request_;
  bool headDone_ = false;
  size_t nextPrefix_ = 0;
  std::string after_;
};

// "multi_ack ... agent=packmoor/<version>", with the target of HEAD where HEAD has a value.
std::string capabilitiesV0(RepositoryView& view, const UploadPolicy& policy);

}  // namespace packmoor::gitlayer
