/**
 * What the datapath processes of two hosts say to each other beside reads and writes: the messages of
 * `core/mirror/messages.ts` as JSON-RPC, on the control port of the process that owns the volume there. The stream of
 * changes itself is NBD (`datapath/replica-remote/session-export.ts`).
 */
import { z } from 'zod'
import {
  type AcceptAnswer,
  type AcceptRequest,
  type ClearRequest,
  type ConfirmRequest,
  type EpochAnswer,
  type FinishRequest,
  type Heartbeat,
  type HeartbeatAnswer,
  type ProcessIdentity,
  type RaiseRequest,
  type ReplicaAddress,
  type SessionName,
} from '../core/mirror/messages.ts'
import { millis, type RegionIndex, sequence, sessionNumber } from '../core/units.ts'
import {
  bootId,
  bytes,
  count,
  epochNumber,
  hostId,
  incarnation,
  layerId,
  replicaId,
  srId,
  storeId,
  volumeKey,
} from './identifiers.ts'

/** A stack of a thousand snapshots is far beyond what any backup tool makes. */
const LAYERS_MAX = 1024
/**
 * Ranges of one `mirror.clear`. A round of clearing names 16,384 regions at most, whatever the size of the volume, and
 * at worst each is a range of its own. Four times as many leave room for longer rounds, and are 3 MiB of a line.
 */
const RANGES_MAX = 65_536

/** Characters of the digests of one region: 16 of 32 bytes each are 684 of them. */
const DIGESTS_TEXT_MAX = 1024

const identity = z.strictObject({
  host: hostId,
  boot: bootId,
  incarnation,
}) satisfies z.ZodType<ProcessIdentity>

const newReplica = {
  sr: srId,
  volume: volumeKey,
  replica: replicaId,
  layers: z.array(layerId).min(1).max(LAYERS_MAX),
  size: bytes,
}
const address = z.strictObject({ ...newReplica, store: storeId }) satisfies z.ZodType<ReplicaAddress>
const purpose = z.enum(['guest', 'maintenance'])

const sessionName = z.strictObject({
  address,
  epoch: epochNumber,
  session: count.transform(sessionNumber),
}) satisfies z.ZodType<SessionName>

const gone = z.strictObject({ kind: z.literal('gone'), identity, reason: z.string() })
const failed = z.strictObject({ kind: z.literal('failed'), identity, reason: z.string() })

const acceptAnswer = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('accepted'), identity, lostAt: epochNumber.nullable() }),
  z.strictObject({
    kind: z.literal('promised'),
    identity,
    holder: hostId.nullable(),
    epoch: epochNumber,
    remainingMs: z.number().transform(millis),
  }),
  z.strictObject({ kind: z.literal('preparing'), identity, reason: z.string() }),
  z.strictObject({ kind: z.literal('higher-epoch'), identity, epoch: epochNumber }),
  gone,
  failed,
]) satisfies z.ZodType<AcceptAnswer>

const epochAnswer = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('ok'), identity, takenAway: count, lostAt: epochNumber.nullable() }),
  z.strictObject({ kind: z.literal('refused'), identity, accepted: epochNumber }),
  gone,
  failed,
]) satisfies z.ZodType<EpochAnswer>

const nothing = z.null()

/** Method name -> schemas of its parameters and its result. */
export const mirrorApi = {
  'mirror.heartbeat': {
    params: z.strictObject({ from: identity, echo: count }) satisfies z.ZodType<Heartbeat>,
    result: z.strictObject({
      identity,
      answer: count,
      renewed: z.boolean(),
      takenAway: count,
    }) satisfies z.ZodType<HeartbeatAnswer>,
  },
  'mirror.accept': {
    params: z.strictObject({
      address,
      epoch: epochNumber,
      asker: identity,
      purpose,
      inSync: z.boolean(),
      voidUpTo: epochNumber,
    }) satisfies z.ZodType<AcceptRequest>,
    result: acceptAnswer,
  },
  'mirror.confirm': {
    params: z.strictObject({
      address,
      epoch: epochNumber,
      asker: identity,
      purpose,
    }) satisfies z.ZodType<ConfirmRequest>,
    result: epochAnswer,
  },
  'mirror.raise': {
    params: z.strictObject({
      address,
      from: epochNumber,
      to: epochNumber,
      asker: identity,
      inSync: z.boolean(),
    }) satisfies z.ZodType<RaiseRequest>,
    result: epochAnswer,
  },
  /**
   * One part of the write intents: a large volume's do not fit one line. Bits that are set between two parts belong
   * to changes which the asker itself sends, so the parts need not be of one moment.
   */
  'mirror.intents': {
    params: z.strictObject({ name: sessionName, fromByte: count }),
    result: z.strictObject({
      /** Regions of the volume. */
      regions: count,
      /** Bytes of the bitmap in this part. */
      bytes: count,
      /** The part, raw-deflated (RFC 1951) and in base64. */
      bits: z.base64(),
    }),
  },
  /** Digests of the blocks of a region, in base64; null when the replica cannot vouch for what it reads. */
  'mirror.digests': {
    params: z.strictObject({ name: sessionName, region: count.transform(value => value as RegionIndex) }),
    result: z.strictObject({ digests: z.base64().max(DIGESTS_TEXT_MAX).nullable() }),
  },
  'mirror.clear': {
    params: z.strictObject({
      name: sessionName,
      upTo: count.transform(sequence),
      regions: z.array(z.strictObject({ first: count, end: count })).max(RANGES_MAX),
      reconciled: z.boolean(),
    }) satisfies z.ZodType<ClearRequest>,
    result: nothing,
  },
  'mirror.finish': {
    params: z.strictObject({
      name: sessionName,
      asker: identity,
      clearIntents: z.boolean(),
    }) satisfies z.ZodType<FinishRequest>,
    result: nothing,
  },
  'mirror.create': {
    params: z.strictObject({ address: z.strictObject(newReplica), blank: z.boolean(), lost: replicaId }),
    result: z.strictObject({ store: storeId, replica: replicaId }),
  },
} as const

export type MirrorMethod = keyof typeof mirrorApi
export type MirrorParams<M extends MirrorMethod> = z.output<(typeof mirrorApi)[M]['params']>
export type MirrorResult<M extends MirrorMethod> = z.output<(typeof mirrorApi)[M]['result']>
