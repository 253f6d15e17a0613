/** Every maximum in slicenet, so that nothing that a peer or a user feeds can grow without bound. */
export const LIMITS = {
  /** A signed object on the wire, and its nesting (design §3). */
  objectBytesMax: 16 * 1024,
  objectDepthMax: 16,
  /** Links of a ticket chain below the node's delegation. */
  chainLinksMax: 8,
  /** Tickets of earlier delegations that a delegation counts, and surrenders that a lease carries; both fit an object. */
  countedTicketsMax: 160,
  surrendersPerLeaseMax: 24,
  surrenderBytesMax: 512,
  /** Objects that a proof of fraud rests on, and all of them together; they fit one message. */
  proofObjectsMax: 250,
  proofBytesMax: 240 * 1024,
  /** How long one is kept and passed on, and how many; gossip carries the smaller ones, the rest is fetched. */
  proofLifeMsMax: 90 * 24 * 3_600_000,
  proofsKeptMax: 256,
  proofsKeptBytesMax: 16 * 1024 * 1024,
  gossipedProofBytesMax: 32 * 1024,
  proofsPerMessageMax: 16,
  /** Proofs that one peer brings, to be recomputed: so many at once, and so many a minute in the long run. */
  proofsPerPeerBurst: 16,
  proofsPerPeerPerMinute: 30,
  /** Objects that a peer remembers to find contradictions among. */
  watchedObjectsMax: 20_000,
  /** One message of a protocol; larger things travel as streams. */
  messageBytesMax: 256 * 1024,
  /** Adverts in one answer; more are asked for by a cursor. */
  advertsPerMessageMax: 200,
  /** The local table of adverts. */
  directoryEntriesMax: 20_000,
  /** An advert says when it dies; this is the longest a directory believes. */
  advertLifetimeMsMax: 10 * 60_000,
  /** How far ahead of this clock an advert may begin. */
  advertSkewMsMax: 60_000,
  /** New adverts of one signer: so many at once, and so many a minute in the long run. */
  advertsPerSignerBurst: 8,
  advertsPerSignerPerMinute: 30,
  /** Adverts named in one page of a digest. */
  digestEntriesMax: 1000,
  digestPagesMax: 400,
  /** Exchanges of digests at a time. */
  pullsAtOnceMax: 8,
  /** Principals of which a peer finds out whether they are still there, and calls to them at a time. */
  suspectsMax: 4096,
  probesAtOnceMax: 16,
  /** Principals, and as many organisations, that an advert says its issuer serves. */
  acceptedPrincipalsMax: 64,
  /** Memberships that one principal shows, and each of them. */
  membershipsShownMax: 4,
  membershipBytesMax: 640,
  /** Its own memberships that a peer keeps, later terms included. */
  membershipsKeptMax: 32,
  /** What a policy of connections names; peers that have yet to show a membership, how long they may take, how often one shows. */
  gatedPrincipalsMax: 4096,
  gatedAddressesMax: 1024,
  connectionPolicyBytesMax: 1024 * 1024,
  unprovenPeersMax: 128,
  unprovenCallsMax: 8,
  avoidedPeersMax: 4096,
  membershipShowMsMax: 10_000,
  membershipShowsBurst: 8,
  membershipShowsPerMinute: 6,
  /** How long an organisation vouches at a time, and for how long an invite can be used. */
  membershipMsMax: 366 * 24 * 3_600_000,
  inviteMsMax: 90 * 24 * 3_600_000,
  /** Addresses that one invite names, and letters of each; all that invites brought; an invite or membership as text. */
  invitedAddressesMax: 16,
  invitedAddressCharsMax: 256,
  invitedPeersMax: 64,
  objectTextCharsMax: 9000,
  topicsPerPeerMax: 256,
  topicCharsMax: 256,
  /** Keys of the DHT that one agent announces itself under, and how long others keep an announcement. */
  rendezvousKeysMax: 48,
  providerLifetimeMs: 45 * 60_000,
  agentsFoundMax: 64,
  /** Keys of the index that one query looks up. */
  indexLookupsMax: 6,
  /** Adverts taken of one agent that the index names. */
  indexedAdvertsMax: 2000,
  /** Regions, and as many organisations, of one agent's advert that are listened to. */
  topicsPerAgentMax: 8,
  /** Agents that a broker asks what they hold; the adverts of nodes name them, truly or not. */
  agentsAskedMax: 64,
  /**
   * What a broker does for others: queries and plans that it works on at once, of one caller among them, and calls of one
   * caller at once and a minute in the long run; callers that it remembers for that.
   */
  brokerWorkMax: 16,
  brokerWorkPerCallerMax: 2,
  brokerCallsPerCallerBurst: 12,
  brokerCallsPerCallerPerMinute: 30,
  brokerCallersMax: 4096,
  /** Adverts, and nodes passed over, in one answer of a broker; the brokers that a peer asks. */
  brokerAdvertsMax: 10_000,
  brokerRejectionsMax: 1000,
  brokersAskedMax: 4,
  /** Nodes among which members of a slice with conditions on pairs are sought, and the steps that the search takes. */
  placementNodesMax: 1024,
  placementStepsMax: 2_000_000,
  /** Clauses of a query and of a slice that a node fails, as far as they are told. */
  failedClausesMax: 64,
  /** Peers that one call has another ping, and bytes that one takes to measure an uplink. */
  pingTargetsMax: 16,
  /** Pairs of nodes that a broker has measured for one choice, and that it remembers. */
  pingPairsMax: 2048,
  pairTimesMax: 20_000,
  sinkBytesMax: 8 * 1024 * 1024,
  /** Others whose round-trip times a peer keeps, to place itself by. */
  neighboursMax: 64,
  /** Targets that one caller, and all together, have pinged: so many at once, and so many a minute in the long run. */
  pingsPerCallerBurst: 64,
  pingsPerCallerPerMinute: 64,
  pingsBurst: 256,
  pingsPerMinute: 256,
  pingsAtOnceMax: 32,
  /** Targets of them that are looked for in the DHT, which is dear. */
  pingLookupsBurst: 32,
  pingLookupsPerMinute: 16,
  /** Measurements of uplinks that are taken at once; from one caller, and from all together. */
  sinksAtOnceMax: 4,
  sinkMsMax: 15_000,
  sinksPerCallerBurst: 3,
  sinksPerCallerPerHour: 4,
  sinksBurst: 16,
  sinksPerMinute: 8,
  /** Callers whose rates are remembered. */
  ratedCallersMax: 4096,
  /** A ticket that is not redeemed within this is worth nothing. */
  holdMsMax: 10 * 60_000,
  leaseMsMax: 90 * 24 * 3_600_000,
  queryCharsMax: 4096,
  /** What evaluating a query over one advert may cost at worst, and one query over all adverts that a peer knows. */
  queryStepsMax: 20_000,
  queryMsMax: 5000,
  /** Queries that an agent answers at once, and what one may take of its time. */
  agentQueriesAtOnceMax: 8,
  agentQueryMsMax: 250,
  sliceFileBytesMax: 64 * 1024,
  /** An agent's policy: the file, its rules, and those whom one rule names. */
  policyFileBytesMax: 256 * 1024,
  policyRulesMax: 256,
  policyPrincipalsMax: 1024,
  sliceMembersMax: 1000,
  portRangesPerTicketMax: 64,
  /** Tickets asked for, given back or settled in one message; with their chains they must fit into it. */
  ticketsPerMessageMax: 32,
  /** Tickets of one line that no node has settled, each of which goes on with the one before. */
  ticketsPerLineMax: 32,
  receiptsPerMessageMax: 16,
  /** Principals that one peer rates, and tells of in one answer. */
  ratedMax: 4096,
  ratingsMax: 64,
  /** Revocations in force at a node; by one principal a part of them. */
  revocationsMax: 4096,
  revocationsPerPrincipalMax: 256,
  /** Of those, what others than the node and its agents have. */
  revocationsOfOthersMax: 1024,
  /** Tickets that a node bars although it delegated nothing to their issuers. */
  foreignTicketsBarredMax: 4096,
  keysPerLeaseMax: 32,
  argumentsMax: 256,
  argumentBytesMax: 64 * 1024,
  uploadedFilesMax: 64,
  uploadedFileBytesMax: 128 * 1024,
  /** Streams of one protocol from one peer at a time. */
  streamsPerPeerMax: 32,
  /** Requests a role works on at once; more are refused as BUSY. */
  requestsAtOnceMax: 64,
  /** Calls that stream, such as a followed log, at once: they last, and are counted apart. */
  streamingCallsAtOnceMax: 256,
  /** A stream that brings no request, or takes none of the answer, for so long is given up. */
  requestWaitMsMax: 30_000,
  writeStallMsMax: 60_000,
  /** What is read ahead of a stream's reader, and the most that the other side may have under way. */
  streamReadAheadBytesMax: 256 * 1024,
  streamWindowBytesMax: 512 * 1024,
  /** Opening a stream: looking addresses up, dialing, agreeing on the protocol. */
  dialMsMax: 15_000,
  connectionsMax: 2000,
  /** Beyond so many, connections that nobody uses are closed. */
  idleConnectionsMax: 256,
  inboundConnectionsPerSecondMax: 200,
  inboundConnectionsPendingMax: 200,
  /** What a relay does for others: slots, how long each lasts unless renewed, and how many are for one address. */
  relayReservationsMax: 128,
  relayReservationMs: 30 * 60_000,
  relayReservationsPerAddressMax: 16,
  /** Connections relayed to and from one peer at a time, how long each lasts, and what it may carry both ways. */
  relayedConnectionsPerPeerMax: 64,
  relayedConnectionMsMax: 60 * 60_000,
  relayedConnectionBytesMax: 64 * 1024 * 1024,
  /** Relays at which a peer that is not reached otherwise has a slot, and addresses told of each. */
  relaysHeldMax: 2,
  relayAddressesMax: 2,
  /** Addresses that a peer tells of itself; an advert has room for so many. */
  announcedAddressesMax: 16,
  /** Peers dialed back at a time because they asked to be, and addresses of one that are tried. */
  dialBacksAtOnceMax: 8,
  dialBackAddressesMax: 8,
  /** Peers of the same LAN, found by multicast, that are dialed at a time and stayed connected to. */
  nearbyPeersMax: 8,
  pingsMax: 1000,
  /** Files that one process in a virtual machine may have open, where the host allows its own as many. */
  openFilesPerProcessMax: 65_536,
  /** Columns, and rows, of a terminal. */
  terminalCharsMax: 1000,
  /** What the peer remembers of others in memory: addresses, and records it keeps for the DHT. */
  peersRememberedMax: 4096,
  /** Of those, how many are kept decoded. */
  peersCachedMax: 1024,
  dhtRecordsMax: 2048,
  /** How often the DHT looks through every part of its routing table. */
  dhtRefreshMs: 12 * 3_600_000,
  dhtProvidersMax: 4096,
  /** Peers on disk, to rejoin by, and how many of them and of the bootstrap peers to stay connected to. */
  knownPeersMax: 64,
  joinPeersMax: 4,
  agentsPerNodeMax: 32,
  /**
   * The audit trail of administrative slices: one entry, and one argument or path in it; one file and how many of a kind
   * are kept; entries that are read at once; processes of one lease that are noted in a minute.
   */
  auditEntryBytesMax: 8 * 1024,
  auditTextCharsMax: 512,
  auditFileBytesMax: 8 * 1024 * 1024,
  auditFilesMax: 4,
  auditReadMax: 1000,
  auditProcessesPerMinute: 300,
  /** Who may hold administrative slices on one node. */
  administratorsPerNodeMax: 16,
  delegationsPerAgentMax: 10_000,
  /** A message on the control socket, where both ends are this machine's: a slice with its files, a list of nodes. */
  controlMessageBytesMax: 16 * 1024 * 1024,
  logBytesPerVserverMax: 4 * 1024 * 1024,
  /** The store: one key and one value, one commit, what waits to be synced, and what is synced at once. */
  storeKeyBytesMax: 1024,
  storeValueBytesMax: 1024 * 1024,
  storeEntriesPerCommitMax: 10_000,
  storeCommitBytesMax: 8 * 1024 * 1024,
  storePendingBytesMax: 64 * 1024 * 1024,
  storeGroupBytesMax: 16 * 1024 * 1024,
  /** A journal segment that has reached this is closed and the next one begun. */
  storeSegmentBytesMax: 64 * 1024 * 1024,
  /**
   * A journal is compacted when it has more bytes than this and so many times those of what it would keep: writing a
   * snapshot then costs a third of the bytes written since the one before, at most.
   */
  storeCompactionBytesMin: 64 * 1024 * 1024,
  storeCompactionFactor: 4,
  /** Entries read from the tables at a time, and bytes; a chunk of a snapshot holds as many. */
  storeChunkEntriesMax: 1000,
  storeChunkBytesMax: 1024 * 1024,
  /** Network links of a node; their addresses, devices and traffic classes are numbered up to here. */
  linksPerNodeMax: 4095,
  /** Devices by which what vservers send leaves a node. */
  uplinksPerNodeMax: 8,
  /** Connections that one vserver may have in the node's connection table. */
  flowsPerVserverMax: 4096,
  /** Destinations that one vserver began to talk to in the last hour and that count as known to it. */
  knownDestinationsPerVserverMax: 4096,
  /** Bits a second of anything that is shaped: what tc takes as a whole number. */
  rateBpsMax: 1_000_000_000_000,
  /**
   * The record of flows: connections that are followed at a time, and flows outside connections that are counted; flows in
   * one piece of the log, how large that may be, and how large a file of the log; signed roots that are kept.
   */
  openFlowsMax: 262_144,
  untrackedFlowsMax: 65_535,
  flowsPerRecordMax: 2000,
  flowRecordBytesMax: 4 * 1024 * 1024,
  flowFileBytesMax: 8 * 1024 * 1024,
  flowRootsMax: 10_000,
  /** Flows in one answer of the control socket. */
  flowsPerAnswerMax: 1000,
  devnetHostsMax: 200,
  /** Each takes 65,536 user ids of the host, of which there are 2³². */
  vserversPerNodeMax: 512,
  /** Vservers made ahead. */
  sparesPerNodeMax: 16,
  /** Virtual machines that a node makes or removes at the same time; more wait their turn. */
  vserversInWorkMax: 4,
  execsPerVserverMax: 32,
  /** One unpacked image, and all of them on a machine. */
  imageBytesMax: 8 * 1024 * 1024 * 1024,
  imageEntriesMax: 500_000,
  imagesMax: 128,
  /** Images whose files a new one is compared with, to keep one copy of those that are the same. */
  imagesSharedWithMax: 16,
  /** Of an OCI image layout: layers of an image, manifests to choose from, an index, manifest or configuration. */
  imageLayersMax: 256,
  imageManifestsMax: 256,
  imageDocumentBytesMax: 4 * 1024 * 1024,
  /** A normalised archive on its way from another node: files and their headers. What is kept of images that were cut off. */
  imageArchiveBytesMax: 9 * 1024 * 1024 * 1024,
  partialImagesMax: 8,
  /** Images that are fetched at once, nodes that are asked for one, and how little may come in that time before another is. */
  imageFetchesAtOnceMax: 2,
  imageSourcesMax: 16,
  imageStallMsMax: 60_000,
  imageStallBytesMin: 256 * 1024,
  /** Peers that sent something else than an image, as far as they are remembered, and images that nobody can make whole. */
  imageCheatsMax: 4096,
  /** Images that are served at once, of them to one peer; how long one serving may last; how often, to one peer and to all. */
  imageServesAtOnceMax: 4,
  imageServesPerCallerMax: 2,
  imageServeMsMax: 15 * 60_000,
  imageServesPerCallerBurst: 16,
  imageServesPerCallerPerMinute: 6,
  imageServesBurst: 64,
  imageServesPerMinute: 60,
  /** A file of accounts, hosts or keys that is read from an image. */
  rootFileBytesMax: 1024 * 1024,
  /** Calls on the control socket at once, apart from them streams that last (more are refused as BUSY), and connections. */
  controlCallsMax: 64,
  controlStreamsMax: 256,
  controlConnectionsMax: 512,
  /** A slice's files together: they travel in one message with the rest of its description. */
  sliceFilesBytesMax: 4 * 1024 * 1024,
  /** A file of a signed object or a chain of them, as text or as bytes. */
  objectFileBytesMax: 512 * 1024,
  /** What `slice exec --json` and `slice logs --json` gather into their document. */
  gatheredOutputBytesMax: 4 * 1024 * 1024
} as const
