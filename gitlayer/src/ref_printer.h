// Refs as pkt-lines, in slices: the advertisements of protocols 0 and 1, and the answer to ls-refs.
//
// Why: a repository may have a million refs. A slice reads some, prints them and remembers the last name;
// nothing is ever built whole. What is longer than a slice goes on from pages that are kept between requests,
// where there are any (ref_book.h). print() runs on a worker where refs are many.
#pragma once

#include "gitlayer/git_front.h"
#include "ref_page.h"
#include "upload_request.h"

#include <kernelio/co.h>

#include <memory>
#include <string>

namespace packmoor::gitlayer {

class PktWriter;

class RefPrinter {
 public:
  // Protocols 0 and 1. `capabilities` follow the first ref. What the settings hide from the service is left
  // out. The view outlives the printer.
  RefPrinter(RepositoryView& view, GitService service, std::string capabilities);
  // Protocol 2's ls-refs; `request` is finished.
  RefPrinter(RepositoryView& view, ListRequest request);

  // Appends pkt-lines of about `bytes`. True: there is more. The flush is the caller's.
  bool print(std::string& out, size_t bytes);

 private:
  enum class Form : uint8_t { kUploadV0, kUploadV2, kReceive };

  bool printPrefix(std::string& out, size_t until);
  bool printPage(std::string& out, const RefPage& page);
  void printHead(std::string& out);
  void printRef(std::string& out, const Ref& ref);
  void printLine(std::string& out, const RefLine& line);
  bool isHidden(std::string_view name) const { return !hidden_.empty() && isHiddenRef(hidden_, name); }
  void line(std::string& out, std::string text);

  RepositoryView& view_;
  const Form form_;
  const std::vector<std::string>& hidden_;
  std::string capabilities_;     // protocols 0 and 1: not yet printed
  ListRequest request_;
  bool headDone_ = false;
  size_t nextPrefix_ = 0;
  std::string after_;            // of the refs with that prefix, those up to here are printed
};

// Prints all, on workers, the next slice while one is sent. What is left for the writer is the last slice.
// `keep`: what the printer borrows. The writer outlives the promise.
Co<void> sendRefs(kernelio::Env& env, std::shared_ptr<RefPrinter> printer, std::shared_ptr<const void> keep,
                  PktWriter& writer);

// "multi_ack ... agent=packmoor/<version>", with the target of HEAD where HEAD has a value.
std::string capabilitiesV0(RepositoryView& view, const UploadPolicy& policy, const std::string& session);

}  // namespace packmoor::gitlayer
