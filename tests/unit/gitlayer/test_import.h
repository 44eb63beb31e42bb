// Bringing what is in a git repository into a cluster's, as pushes would.
#pragma once

#include "test_cluster.h"

#include <support/git_process.h>

namespace packmoor::gitlayer::test {

// The objects of some revisions ("main", "^old") as one push whose pack lies in extents; no refs.
void importPack(TestCluster& cluster, const RepositoryInfo& repository,
                packmoor::test::TestGit& git, const std::vector<std::string>& revisions);
// Every object that the repository lacks, hot, and every ref that differs, as one push.
void importHot(TestCluster& cluster, const RepositoryInfo& repository,
               packmoor::test::TestGit& git);

}  // namespace packmoor::gitlayer::test
