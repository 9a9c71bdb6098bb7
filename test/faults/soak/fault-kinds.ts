/** What a soak does to hosts, their programs, links and disks, and what that means to a volume. */

/** What is hit: a whole host, its links, one link, a program of it, or everything. */
interface Kind {
  /** How often it is drawn, against the others. */
  readonly weight: number
  readonly what: string
  /**
   * What becomes of a volume whose primary is hit. `lost`: its host serves no more, another one has to. `guest ends`: the
   * connection ends, and the host goes on. `stays`: at most a wait.
   */
  readonly primary: 'lost' | 'guest ends' | 'stays'
  /** Whether what the host holds may go out of the record. */
  readonly losesReplica: boolean
  /** Whether the processes that hold replicas end, all or the one of the volume; then un-synced writes are lost. */
  readonly endsDatapath: boolean
  /** Whether it hits all hosts at once. */
  readonly ofAll: boolean
  /** Whether the stall it causes is limited by what was promised; else it may last as long as the fault. */
  readonly limited: boolean
}

const base = {
  primary: 'stays',
  losesReplica: false,
  endsDatapath: false,
  ofAll: false,
  limited: true,
} as const

export const FAULT_KINDS = {
  'host killed': {
    ...base,
    weight: 6,
    what: 'SIGKILL to everything of a host: a power cut, where un-synced writes go with it',
    primary: 'lost',
    losesReplica: true,
    endsDatapath: true,
  },
  'host stopped': {
    ...base,
    weight: 3,
    what: 'SIGSTOP to everything of a host, which goes on later',
    primary: 'lost',
    losesReplica: true,
  },
  'host cut off': { ...base, weight: 3, what: 'nothing passes', primary: 'lost', losesReplica: true },
  'host mute': { ...base, weight: 2, what: 'what it sends is lost', primary: 'lost', losesReplica: true },
  'host deaf': {
    ...base,
    weight: 2,
    what: 'what is sent to it is lost',
    primary: 'lost',
    losesReplica: true,
  },
  'link cut': { ...base, weight: 2, what: 'between two hosts, both ways', losesReplica: true },
  'link cut one way': { ...base, weight: 2, what: 'between two hosts, in one direction', losesReplica: true },
  'slow link': { ...base, weight: 2, what: 'a limit of 5 to 100 Mbit/s', limited: false },
  'disk full': { ...base, weight: 3, what: "a file that fills the host's disk", losesReplica: true },
  'datapath killed': {
    ...base,
    weight: 4,
    what: "SIGKILL to the volume's datapath process",
    primary: 'guest ends',
    losesReplica: true,
    endsDatapath: true,
  },
  'datapath stopped': {
    ...base,
    weight: 2,
    what: "SIGSTOP to the volume's datapath process",
    primary: 'lost',
    losesReplica: true,
  },
  'xosand killed': { ...base, weight: 2, what: 'SIGKILL' },
  'xosand stopped': { ...base, weight: 1, what: 'SIGSTOP' },
  'supervisor killed': { ...base, weight: 1, what: 'SIGKILL; nobody starts the others again for a while' },
  'etcd killed': { ...base, weight: 2, what: 'SIGKILL to a member of etcd' },
  'etcd stopped': { ...base, weight: 2, what: 'SIGSTOP to a member of etcd' },
  'all killed': {
    ...base,
    weight: 1,
    what: 'SIGKILL to everything of all hosts within a moment: a power cut',
    primary: 'lost',
    losesReplica: true,
    endsDatapath: true,
    ofAll: true,
    limited: false,
  },
  'all restarted': {
    ...base,
    weight: 1,
    what: 'all hosts shut down in order, and started',
    primary: 'lost',
    losesReplica: true,
    ofAll: true,
    limited: false,
  },
} as const satisfies Readonly<Record<string, Kind>>

export type FaultKind = keyof typeof FAULT_KINDS

export const kindOf = (kind: FaultKind): Kind => FAULT_KINDS[kind]
