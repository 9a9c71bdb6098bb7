/** What etcd lists, in the words of the cluster. */
import { type EtcdMemberRecord } from '../../cluster/etcd/etcd-admin.ts'
import { type EtcdMember } from '../../cluster/etcd/member-link.ts'
import { type StatusReply } from '../../cluster/etcd/replies.ts'
import { type HostRecord } from '../../cluster/records.ts'
import { type ListedMember } from '../../core/placement/coordinator-members.ts'
import { type HostId } from '../../core/units.ts'
import { hostId } from '../../rpc/identifiers.ts'
import { type ClusterEtcdMember } from '../cluster/cluster-file.ts'
import { peerUrl } from './member-arguments.ts'

/** A learner that lacks no more changes than this has caught up; it gets them with the next message. */
const CAUGHT_UP_CHANGES = 100n

/** Whose a member is: it has its host's id as a name, and before it has started, only its host's address. */
function hostOf({ name, peerUrls }: EtcdMemberRecord, records: readonly HostRecord[]): HostId | null {
  const named = hostId.safeParse(name)
  if (named.success) return named.data
  const found = records.find(({ address, ports: { etcd } }) =>
    etcd === undefined ? false : peerUrls.includes(peerUrl({ address, ports: etcd }))
  )
  return found?.host ?? null
}

/** Where clients find a member; null before it has started. */
export function addressOf({ clientUrls: [text] }: EtcdMemberRecord): EtcdMember | null {
  if (text === undefined || !URL.canParse(text)) return null
  const { hostname, port } = new URL(text)
  return { address: hostname.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** Members that clients may be told of: those that have a vote, and have been running. In the order of their ids. */
export function membersForClients(listed: readonly EtcdMemberRecord[]): ClusterEtcdMember[] {
  return [...listed]
    .filter(({ learner }) => !learner)
    .sort((a, b) => (a.id < b.id ? -1 : 1))
    .flatMap(member => {
      const host = hostId.safeParse(member.name)
      const address = addressOf(member)
      return host.success && address !== null ? [{ host: host.data, ...address }] : []
    })
}

/**
 * What etcd lists, together with what each member says of itself.
 * @param statuses by member id; missing: it does not answer
 */
export function listedMembers(
  listed: readonly EtcdMemberRecord[],
  records: readonly HostRecord[],
  statuses: ReadonlyMap<string, StatusReply>
): ListedMember[] {
  const indexes = [...statuses.values()].map(({ raftIndex }) => BigInt(raftIndex))
  const latest = indexes.reduce((a, b) => (a > b ? a : b), 0n)
  return listed.map(member => {
    const status = statuses.get(member.id)
    const reachable = status !== undefined && status.header.member_id === member.id && status.leader !== '0'
    return {
      id: member.id,
      host: hostOf(member, records),
      learner: member.learner,
      started: member.name !== '',
      reachable,
      caughtUp: reachable && latest - BigInt(status.raftAppliedIndex) <= CAUGHT_UP_CHANGES,
    }
  })
}
