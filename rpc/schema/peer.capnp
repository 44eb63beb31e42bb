# What nodes send to each other: replicator/peer.h on the wire.
#
# A connection carries TLS, then one Hello and one Welcome as plain messages, then Cap'n Proto RPC
# with Node as the bootstrap interface. Each node dials the others twice, for control and for bulk,
# and calls through the connections that it dialled.
#
# Compatibility: fields and methods are only added. A change that an older node would misread
# raises the protocol version in peer_handshake.h.
@0xf3524e966be85fbc;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("packmoor::rpc::wire");

# The first bytes of a connection, from the node that dialled.
struct Hello {
  protocolMin @0 :UInt16;
  protocolMax @1 :UInt16;
  cluster @2 :Text;
  node @3 :Text;        # who speaks; must be the name in the certificate
  target @4 :Text;      # who is meant
  software @5 :Text;    # version, for people
  role @6 :Role;
}
enum Role { control @0; bulk @1; }

# The answer. With a refusal the connection ends here.
struct Welcome {
  protocol @0 :UInt16;
  cluster @1 :Text;
  node @2 :Text;
  software @3 :Text;
  refusal @4 :Text;     # empty: accepted
}

struct Uuid { low @0 :UInt64; high @1 :UInt64; }   # bytes 0-7 and 8-15, little-endian
struct Hash { low @0 :UInt64; high @1 :UInt64; }
struct Position { index @0 :UInt64; epoch @1 :UInt64; hash @2 :Hash; }
struct Member { node @0 :Text; journal @1 :Uuid; }

struct Configuration {
  epoch @0 :UInt64;
  primary @1 :Member;
  nonce @2 :Uuid;
  members @3 :List(Member);
  async @4 :List(Member);
  writeQuorum @5 :UInt32;
  joining @6 :List(Member);
}

struct AcceptedLoss {
  epoch @0 :UInt64;
  adopted @1 :Position;
  kept @2 :List(Member);
  ignored @3 :List(Member);
  writeQuorum @4 :UInt32;
  atMs @5 :Int64;
  by @6 :Text;
  what @7 :Text;
  acknowledged @8 :Bool;
}

struct VolumeRecord {
  id @0 :Uuid;
  name @1 :Text;
  current @2 :Configuration;
  active @3 :Bool;
  lastActive @4 :Configuration;   # null: never active
  revision @5 :Int64;
  pair @6 :Bool;
  weight @7 :UInt32 = 100;
  drained @8 :List(Text);
  losses @9 :List(AcceptedLoss);
}

# Index and previous hash follow from the record before it. The hash is what the receiver's own
# computation over all fields must give.
struct Record {
  epoch @0 :UInt64;
  kind @1 :UInt16;
  hash @2 :Hash;
  extents @3 :Data;               # 16 bytes each
  payload @4 :Data;
}

struct AppendRequest {
  volume @0 :Uuid;
  epoch @1 :UInt64;
  nonce @2 :Uuid;
  primary @3 :Member;
  member @4 :Uuid;
  previous @5 :Position;
  records @6 :List(Record);
  committed @7 :UInt64;
  everywhere @8 :UInt64;
  behind @9 :Position;            # null: not that this primary knows
  lossEpoch @10 :UInt64;
}
struct AppendReply {
  outcome @0 :UInt8;              # replicator::AppendReply::Outcome
  epoch @1 :UInt64;
  promised @2 :UInt64;
  position @3 :Position;
}

struct FenceReply {
  promised @0 :Bool;
  repairing @1 :Bool;
  highest @2 :UInt64;
  member @3 :Member;
  last @4 :Position;
  base @5 :UInt64;
}

struct FetchReply {
  firstIndex @0 :UInt64;
  previousHash @1 :Hash;
  records @2 :List(Record);
}

struct ProposeRequest {
  volume @0 :Uuid;
  txn @1 :Uuid;
  kind @2 :UInt16;
  extents @3 :Data;
  sealedOn @4 :List(Text);
  payload @5 :Data;
}
struct ProposeReply {
  outcome @0 :UInt8;              # replicator::ProposeReply::Outcome
  index @1 :UInt64;
  result @2 :Data;
  primary @3 :Text;
  reason @4 :Text;
}

struct ReadIndexRequest {
  volume @0 :Uuid;
  member @1 :Uuid;
  follows @2 :UInt64;
  nonce @3 :Uuid;
  repairs @4 :Bool;
}
struct ReadIndexReply {
  ok @0 :Bool;
  epoch @1 :UInt64;
  committed @2 :UInt64;
  primary @3 :Text;
  reason @4 :Text;
  last @5 :UInt64;
}

struct ConfirmReply {
  follows @0 :Bool;
  round @1 :UInt64;
  promised @2 :UInt64;
}

struct ConsentRequest {
  volume @0 :Uuid;
  candidate @1 :Member;
  epoch @2 :UInt64;
  last @3 :Position;
  handOver @4 :Bool;
}
struct ConsentReply {
  consents @0 :Bool;
  member @1 :Member;
  promised @2 :UInt64;
  last @3 :Position;
  reason @4 :Text;
}

struct CheckpointBlock {
  volume @0 :Uuid;
  checkpoint @1 :Uuid;
  file @2 :UInt32;
  block @3 :UInt64;
}

interface Node {
  append @0 AppendRequest -> AppendReply;
  fence @1 (coordinator :VolumeRecord, acceptsLoss :Bool) -> FenceReply;
  fetch @2 (volume :Uuid, epoch :UInt64, first :UInt64, last :UInt64) -> FetchReply;
  commonPrefix @3 (volume :Uuid, positions :List(Position)) -> (position :Position);
  propose @4 ProposeRequest -> ProposeReply;
  readIndex @5 ReadIndexRequest -> ReadIndexReply;
  confirm @6 (volume :Uuid, member :Uuid, epoch :UInt64, round :UInt64) -> ConfirmReply;
  takeOver @7 (volume :Uuid) -> ();

  writeExtent @8 (id :Uuid) -> (sink :ExtentSink);
  abandonExtent @9 (id :Uuid) -> ();
  readExtentBlock @10 (id :Uuid, block :UInt64) -> (checksum :Hash, data :Data);
  extentInfo @11 (id :Uuid) -> (bytes :UInt64, root :Hash);

  query @12 (volume :Uuid, name :Text, question :Data) -> (answer :Data);

  consent @13 ConsentRequest -> ConsentReply;

  openCheckpoint @14 (volume :Uuid, member :Uuid, resume :Uuid, replaces :Bool)
      -> (checkpoint :Uuid, position :Position, manifestBytes :UInt64, manifestHash :Hash);
  readCheckpointBlock @15 CheckpointBlock -> (checksum :Hash, data :Data);
  closeCheckpoint @16 (volume :Uuid, checkpoint :Uuid) -> ();
}

# One extent on its way to a node. Blocks are written in the order in which they are sent; a
# failed one fails what follows. Dropping the sink before seal has answered abandons the extent.
interface ExtentSink {
  writeBlock @0 (block :UInt64, checksum :Hash, data :Data) -> stream;
  seal @1 (bytes :UInt64, root :Hash) -> ();
}
