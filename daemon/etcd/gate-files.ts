/** What the gate of etcd is told, and by whom: the files of this host's trust, which xosand keeps. */
import { reasonOf } from '../../core/errors.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { millis } from '../../core/units.ts'
import { TrustDirectory } from '../../trust/trust-directory.ts'
import { type GateTrust } from './gate.ts'

/** A host that was removed is shut out within this time after xosand has written so. Three small calls each time. */
const LOOK_MS = millis(250)
/** After what went wrong: it takes reading all files. */
const RETRY_MS = millis(1_000)

interface GateFilesOptions {
  /** Of the trust. */
  readonly path: string
  readonly clock: Clock
  /** Told first of all when there is something to be told, and again whenever it has changed. */
  readonly changed: (trust: GateTrust) => Promise<void>
  /** Told once when the files cannot be used, and why; what was told before holds until they can. */
  readonly warn: (reason: string) => void
}

/** Looks at the files again and again: whoever else would have to tell of them might be dead. */
export class GateFiles {
  readonly #options: GateFilesOptions
  #directory: TrustDirectory | null = null
  /** Of the files that were told of last. */
  #seen = ''
  #warned = ''
  #timer: Timer | null = null
  #closed = false

  constructor(options: GateFilesOptions) {
    this.#options = options
  }

  /** Looks now, and from now on. Never rejects. */
  async follow(): Promise<void> {
    let delayMs = LOOK_MS
    try {
      await this.#look()
      this.#warned = ''
    } catch (error) {
      const reason = reasonOf(error)
      if (reason !== this.#warned) this.#options.warn(reason)
      this.#warned = reason
      delayMs = RETRY_MS
    }
    if (!this.#closed) this.#timer = this.#options.clock.after(delayMs, () => void this.follow())
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }

  async #look(): Promise<void> {
    const { path, changed } = this.#options
    const directory = (this.#directory ??= await TrustDirectory.open(path))
    // Of before they are read: what changes meanwhile is read again.
    const stamp = await directory.stamp()
    if (stamp === this.#seen) return
    const credentials = await directory.credentials()
    if (credentials === null) throw new Error('this host has no certificate')
    // Without a list, who was removed would be let in: so nobody is.
    if (!(await directory.hasRevocationList())) throw new Error('there is no list of revoked certificates')
    await changed({ credentials, revoked: await directory.revoked() })
    this.#seen = stamp
  }
}
