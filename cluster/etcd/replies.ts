/** What etcd answers, checked. Ids are 64-bit numbers and stay text; revisions are small and become numbers. */
import { z } from 'zod'

/** @throws by zod, when a revision is no whole number that JavaScript can hold */
const revision = z
  .string()
  .regex(/^\d+$/)
  .transform(Number)
  .refine(value => Number.isSafeInteger(value))
const id = z.string().regex(/^\d+$/)
const bytes = z.instanceof(Buffer)
const count = revision

const header = z.object({ cluster_id: id, member_id: id, revision })

const keyValue = z.object({ key: bytes, value: bytes, mod_revision: revision })
export type KeyValue = z.output<typeof keyValue>

export const rangeReply = z.object({ header, kvs: z.array(keyValue), more: z.boolean() })

export const txnReply = z.object({
  header,
  succeeded: z.boolean(),
  responses: z.array(z.object({ response_range: z.object({ kvs: z.array(keyValue) }).optional() })),
})

export const compactReply = z.object({ header })

export const watchReply = z.object({
  header,
  created: z.boolean(),
  canceled: z.boolean(),
  compact_revision: revision,
  cancel_reason: z.string(),
  fragment: z.boolean(),
  events: z.array(z.object({ type: z.enum(['PUT', 'DELETE']), kv: keyValue })),
})
export type WatchReply = z.output<typeof watchReply>

const memberSchema = z.object({
  ID: id,
  name: z.string(),
  peerURLs: z.array(z.string()),
  clientURLs: z.array(z.string()),
  isLearner: z.boolean(),
})
export const membersReply = z.object({ header, members: z.array(memberSchema) })
export const memberAddReply = z.object({ header, member: memberSchema, members: z.array(memberSchema) })

export const statusReply = z.object({
  header,
  version: z.string(),
  /** Of the database file, and what of it is in use; in bytes. */
  dbSize: count,
  dbSizeInUse: count,
  /** Id of the leader that this member knows; 0: none. */
  leader: id,
  raftIndex: id,
  raftAppliedIndex: id,
  /** Alarms: NOSPACE, CORRUPT. */
  errors: z.array(z.string()),
  isLearner: z.boolean(),
})
export type StatusReply = z.output<typeof statusReply>

/** Every reply begins with one. */
export interface Reply {
  readonly header: { readonly cluster_id: string; readonly revision: number }
}
