/** What `etcd-status.ts` tells of a member. On a page of its own, because that program runs when it is imported. */
export interface EtcdMemberStatus {
  /** UUID of its host. */
  readonly host: string
  /** Null when it does not answer. */
  readonly state: {
    readonly leads: boolean
    /** It knows a leader and has no trouble with its disk. */
    readonly healthy: boolean
    readonly learner: boolean
  } | null
}
