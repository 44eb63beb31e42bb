// The answer to a push: report-status (gitprotocol-pack(5), "Report Status"), inside band 1 where
// the client takes side-bands, with what a person should read on band 2.
#pragma once

#include "gitlayer/pkt_line.h"
#include "gitlayer/small_pack.h"
#include "receive_commands.h"

namespace packmoor::gitlayer {

struct Report {
  ReceiveCommands& request;
  const std::optional<PackRefusal>& refusal;  // of the pack; then no command was carried out
  std::string_view notice;                    // a line for the terminal unless quiet; may be empty
};

void writeReport(PktWriter& writer, Report report);

// A request that cannot be answered by a report: what it asks for is refused as a whole.
void writeRefusal(PktWriter& writer, const ReceiveCapabilities& capabilities,
                  std::string_view sentence);

// `text` on one line, fit for a report.
std::string oneLine(std::string_view text);

}  // namespace packmoor::gitlayer
