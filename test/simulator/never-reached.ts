/** A passage that no universe reaches, and why that is as it should be. */
export interface NeverReached {
  readonly file: string
  /** The line on which it begins, without the blanks around it. */
  readonly text: string
  /** What it is there for all the same, and the test that reaches it. */
  readonly reason: string
}

/**
 * The report of `npm run sim` lists every passage that no universe reached, but for these; one that is reached after all,
 * or is not there any more, is reported as outdated. At most ten, with the steps below.
 */
export const NEVER_REACHED: readonly NeverReached[] = [
  {
    file: 'core/mirror/mirror-state.ts',
    text: 'if (!request.pending.delete(replica)) return',
    reason:
      'An answer of somebody who is not asked any more. Sessions that are over answer nothing, so it would take one turn of ' +
      'the event loop that brings an answer and ends the opening; a write must not be acknowledged by it ' +
      '(test/unit/core/mirror/mirror-state.test.ts, "answers twice").',
  },
  {
    file: 'core/mirror/mirror-state.ts',
    text: 'if (!request.pending.has(replica)) return',
    reason: 'The same, for a refusal (test/unit/core/mirror/mirror-state.test.ts, "nobody asks any more").',
  },
  {
    file: 'core/mirror/replica-rights.ts',
    text: 'if (this.#accepted === to && this.#holder?.process.incarnation === asker.incarnation) return true',
    reason:
      'A primary asks once and no transport of ours repeats; a message that comes twice is answered as the first time, and costs ' +
      'no session (test/unit/replica-local/late-messages.test.ts, "twice is answered twice").',
  },
  {
    file: 'datapath/mirror/request-carrier.ts',
    text: 'if (link === undefined || session == null) return',
    reason:
      'Whoever counts as connected has a session. Should that ever be wrong, a request is not sent, and is sent with the next ' +
      'session; the alternative is a process that ends, with all its volumes (test/unit/datapath/mirror/request-carrier.test.ts).',
  },
  {
    file: 'datapath/mirror/replica-link.ts',
    text: "case 'promised':",
    reason:
      'A primary frees its replica of all earlier promises with its request, so only a peer that is broken can say that it owes ' +
      'one; that costs the peer its place (test/unit/datapath/mirror/replica-link.test.ts, "owes a promise all the same").',
  },
  {
    file: 'datapath/mirror/volume-mirror.ts',
    text: 'const isServing = await this.#establish(outcome).catch((error: unknown) => {',
    reason:
      'A mistake of ours, or an answer of a broken peer, in the middle of an opening: nothing of it may be at work beside the ' +
      'next one (test/scenarios/opening-fails-inside.test.ts).',
  },
  {
    file: 'datapath/mirror/volume-mirror.ts',
    text: 'link.run().catch(async (error: unknown) => {',
    reason:
      'A mistake of ours while a replica is cared for: it is taken up again, since guests wait for it and the process serves ' +
      'other volumes, too (test/scenarios/care-fails-inside.test.ts).',
  },
  {
    file: 'core/mirror/mirror-state.ts',
    text: 'for (const replica of [...this.#links.keys()]) if (!replicas.has(replica)) this.removeLink(replica)',
    reason:
      'A replica was being replaced in the very moment in which the volume was opened again, so nobody else has forgotten the ' +
      'old one: three mishaps at once (test/unit/core/mirror/mirror-state-changes.test.ts, "names any more").',
  },
  {
    file: 'datapath/mirror/replica-link.ts',
    text: "if (hasCode(error, 'REPLICA_GONE') || hasCode(error, 'DISK_FAILED')) throw new ReplicaLost(error.message)",
    reason:
      'A replica is lost between its answer to one message and the next one, some tenths of a millisecond later; else the ' +
      'first one says so (test/unit/datapath/mirror/replica-link.test.ts, "turns out to be lost").',
  },
  {
    file: 'datapath/mirror/replica-link.ts',
    text: "if (hasCode(error, 'REPLICA_CORRUPT')) throw new ReplicaLost(error.message)",
    reason: 'The same, for one that is damaged (the same test).',
  },
]

/** A step of the protocol that is possible and that no universe takes, and why that is as it should be. */
export interface NeverSeen {
  readonly step: string
  readonly reason: string
}

/** As above, of the steps in `transitions.ts`. */
export const NEVER_SEEN: readonly NeverSeen[] = []
