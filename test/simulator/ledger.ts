/**
 * What the administrator's tools asked of the pool and what they were told, and whether the pool keeps to it: volumes
 * that exist, their names, keys and sizes.
 */
import { type VolumeInfo, type VolumeState } from '../../core/mirror/volume-record.ts'
import { type VolumeKey } from '../../core/units.ts'

interface Setting {
  readonly value: string | null
  readonly invokedAt: number
  /** Infinity when nobody was told that it is done: it may have happened, or may still. */
  acknowledgedAt: number
}

/** What was asked about one thing that has one value, like a volume's name. */
class Register {
  readonly #settings: Setting[]

  constructor(value: string | null) {
    this.#settings = [{ value, invokedAt: -1, acknowledgedAt: -1 }]
  }

  begin(value: string | null, now: number): Setting {
    const setting = { value, invokedAt: now, acknowledgedAt: Infinity }
    this.#settings.push(setting)
    return setting
  }

  /** Whether it may have a value now that nobody changes it any more. */
  mayBe(value: string | null): boolean {
    return this.#settings.some(
      setting =>
        setting.value === value &&
        !this.#settings.some(
          ({ invokedAt, acknowledgedAt }) => acknowledgedAt !== Infinity && invokedAt > setting.acknowledgedAt
        )
    )
  }
}

/** A volume whose creation was answered with success. */
export class KnownVolume {
  readonly key: VolumeKey
  readonly createdAt: number
  readonly #name: Register
  readonly #keys = new Map<string, Register>()
  /** Sizes in bytes that were asked for, and the largest that was granted. */
  readonly #sizes: Set<number>
  #grantedSize: number
  /** When somebody first asked for its destruction, and when somebody was first told that it is done. */
  destroyInvokedAt = Infinity
  destroyedAt = Infinity

  constructor(key: VolumeKey, name: string, size: number, now: number) {
    this.key = key
    this.createdAt = now
    this.#name = new Register(name)
    this.#sizes = new Set([size])
    this.#grantedSize = size
  }

  get grantedSize(): number {
    return this.#grantedSize
  }

  beginName(name: string, now: number): Setting {
    return this.#name.begin(name, now)
  }

  beginKey(key: string, value: string | null, now: number): Setting {
    let register = this.#keys.get(key)
    if (register === undefined) this.#keys.set(key, (register = new Register(null)))
    return register.begin(value, now)
  }

  beginSize(size: number): void {
    this.#sizes.add(size)
  }

  granted(size: number): void {
    this.#grantedSize = Math.max(this.#grantedSize, size)
  }

  /** Whether it may have this size: one that was asked for, and not less than was granted before. */
  mayHaveSize(size: number, atLeast = this.#grantedSize): boolean {
    return size >= atLeast && this.#sizes.has(size)
  }

  /** What is wrong with its records now that nobody changes them any more. */
  problemsOf(state: VolumeState, info: VolumeInfo): string[] {
    const problems: string[] = []
    if (!this.#name.mayBe(info.name)) problems.push(`its name is ${info.name}`)
    for (const [key, register] of this.#keys) {
      const value = info.keys[key] ?? null
      if (!register.mayBe(value)) problems.push(`its key ${key} is ${value}`)
    }
    if (!this.mayHaveSize(state.size)) problems.push(`its size is ${state.size}`)
    return problems.map(problem => `P8: of volume ${this.key.slice(0, 8)} ${problem}, which was replaced`)
  }
}

/** All volumes that were asked for. */
export class Ledger {
  readonly volumes = new Map<VolumeKey, KnownVolume>()
  /** Names of volumes whose creation was answered with an error: there must be none of them. */
  readonly refused = new Set<string>()

  /** Whether a complete list may look like this. @returns what is wrong with it */
  problemsOfList(keys: readonly string[], invokedAt: number, now: number): string[] {
    const listed = new Set(keys)
    const problems: string[] = []
    for (const { key, createdAt, destroyInvokedAt, destroyedAt } of this.volumes.values()) {
      const mustBeThere = createdAt < invokedAt && destroyInvokedAt > now
      const mustBeGone = destroyedAt < invokedAt
      if (mustBeThere && !listed.has(key)) problems.push(`P8: SR.ls leaves out volume ${key.slice(0, 8)}`)
      if (mustBeGone && listed.has(key))
        problems.push(`P8: SR.ls shows volume ${key.slice(0, 8)}, which was destroyed`)
    }
    return problems
  }
}
