/**
 * The coordinator port on etcd: one range per read, one transaction per transact, one watch stream per watch.
 * docs/internals/coordinator.md tells what each end of a call means.
 */
import { XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import {
  type Change,
  type Condition,
  type Coordinator,
  type Entry,
  type TransactResult,
  type Watch,
  type WatchListener,
} from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type Millis, millis } from '../../core/units.ts'
import {
  TRANSACTION_KEYS_MAX,
  checkKey,
  checkPrefix,
  checkTransaction,
  endOfPrefix,
} from '../coordinator-limits.ts'
import { isCompacted } from './call-error.ts'
import { Calls } from './calls.ts'
import { EtcdWatch } from './etcd-watch.ts'
import { type EtcdTarget, Members } from './members.ts'
import { RANGE, TXN } from './protocol.ts'
import { type KeyValue, rangeReply, txnReply } from './replies.ts'

export interface EtcdOptions {
  readonly target: EtcdTarget
  /** What all keys begin with inside etcd, for instance one SR and generation; ends with a slash. */
  readonly namespace: string
  readonly clock: Clock
  readonly random: Random
  /** After this long a call ends by itself. */
  readonly callTimeMs?: Millis
  /** How often a watch asks its member for a sign of life. */
  readonly watchPingMs?: Millis
}

export interface EtcdCoordinator extends Coordinator {
  /**
   * Uses other members or certificates from now on.
   * @throws INVALID_ARGUMENT, with nothing changed
   */
  retarget(target: EtcdTarget): void
}

const CALL_TIME_MS = millis(5_000)
/** Three of these without an answer, and the watch moves on. */
const WATCH_PING_MS = millis(1_000)
/** As many entries as an answer to a transaction may carry, so that both have one limit of bytes. */
const PAGE_ENTRIES = TRANSACTION_KEYS_MAX
/**
 * Makes a client. It connects when it is first used, so that a host can start while no member is there.
 * @throws INVALID_ARGUMENT when the members, the certificates or the namespace cannot be used
 */
export function openEtcdCoordinator(options: EtcdOptions): EtcdCoordinator {
  return new EtcdClient(options)
}

class EtcdClient implements EtcdCoordinator {
  readonly #members: Members
  readonly #namespace: string
  readonly #clock: Clock
  readonly #calls: Calls
  readonly #watchPingMs: Millis
  readonly #watches = new Set<EtcdWatch>()

  constructor(options: EtcdOptions) {
    checkNamespace(options.namespace)
    this.#members = new Members(options.target, options.clock, options.random)
    this.#namespace = options.namespace
    this.#clock = options.clock
    this.#calls = new Calls(this.#members, options.clock, options.callTimeMs ?? CALL_TIME_MS)
    this.#watchPingMs = options.watchPingMs ?? WATCH_PING_MS
  }

  async read(key: string): ReturnType<Coordinator['read']> {
    checkKey(key)
    const { kvs, header } = await this.#calls.call(RANGE, rangeReply, { key: this.#bytes(key) }, 'reads')
    const entry = kvs[0] === undefined ? null : this.#entry(kvs[0])
    return { entry, revision: header.revision }
  }

  async list(prefix: string): ReturnType<Coordinator['list']> {
    checkPrefix(prefix)
    const deadline = this.#calls.deadline()
    for (;;) {
      try {
        return await this.#listOnce(prefix, deadline)
      } catch (error) {
        // History went away between two pages; the list is read anew, at a newer revision.
        if (!(error instanceof Error && isCompacted(error.cause))) throw error
      }
    }
  }

  async transact(conditions: readonly Condition[], changes: readonly Change[]): Promise<TransactResult> {
    checkTransaction(conditions, changes)
    const request = {
      compare: conditions.map(({ key, revision }) => ({
        key: this.#bytes(key),
        target: 'MOD',
        result: 'EQUAL',
        mod_revision: revision,
      })),
      success: changes.map(({ key, value }) =>
        value === null
          ? { request_delete_range: { key: this.#bytes(key) } }
          : { request_put: { key: this.#bytes(key), value: Buffer.from(value) } }
      ),
      failure: [...new Set(conditions.map(({ key }) => key))].map(key => ({
        request_range: { key: this.#bytes(key) },
      })),
    }
    // Without any operation etcd would not ask its leader, and could answer from the past.
    if (changes.length === 0) {
      request.success.push({ request_range: { key: this.#bytes('any'), count_only: true } } as never)
    }
    const reply = await this.#calls.call(TXN, txnReply, request, changes.length > 0 ? 'changes' : 'reads')
    return {
      committed: reply.succeeded,
      revision: reply.header.revision,
      current: reply.succeeded
        ? []
        : reply.responses.flatMap(({ response_range }) =>
            (response_range?.kvs ?? []).map(kv => this.#entry(kv))
          ),
    }
  }

  watch(prefix: string, afterRevision: number, listener: WatchListener): Watch {
    checkPrefix(prefix)
    const watch = new EtcdWatch({
      members: this.#members,
      clock: this.#clock,
      prefix: this.#namespace + prefix,
      namespace: this.#namespace,
      afterRevision,
      pingMs: this.#watchPingMs,
      listener,
      revisionNow: async () => (await this.read('any')).revision,
      ended: () => this.#watches.delete(watch),
    })
    this.#watches.add(watch)
    return watch
  }

  retarget(target: EtcdTarget): void {
    this.#members.retarget(target)
  }

  async close(): Promise<void> {
    for (const watch of [...this.#watches]) watch.close()
    this.#members.close()
  }

  async #listOnce(prefix: string, deadline: Millis): ReturnType<Coordinator['list']> {
    const entries: Entry[] = []
    const end = Buffer.from(endOfPrefix(this.#namespace + prefix))
    let from = Buffer.from(this.#namespace + prefix)
    let revision = 0
    for (;;) {
      const request = { key: from, range_end: end, limit: PAGE_ENTRIES, revision }
      const { kvs, more, header } = await this.#calls.call(RANGE, rangeReply, request, 'reads', deadline)
      entries.push(...kvs.map(kv => this.#entry(kv)))
      // All further pages are of the first one's moment.
      if (revision === 0) revision = header.revision
      const last = kvs.at(-1)
      if (!more || last === undefined) return { entries, revision }
      from = Buffer.concat([last.key, Buffer.of(0)])
    }
  }

  #bytes(key: string): Buffer {
    return Buffer.from(this.#namespace + key)
  }

  #entry({ key, value, mod_revision }: KeyValue): Entry {
    return {
      key: key.toString('latin1').slice(this.#namespace.length),
      value: value.toString(),
      revision: mod_revision,
    }
  }
}

function checkNamespace(namespace: string): void {
  checkKey(namespace)
  if (!namespace.endsWith('/')) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: `the namespace "${namespace}"`,
      reason: 'it does not end with a slash',
    })
  }
}
