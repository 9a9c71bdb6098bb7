import { Command, CommandFlag as Flag, NbdError, PAYLOAD_BYTES_MAX } from '../../core/nbd-wire/constants.ts'
import { type RequestHeader } from '../../core/nbd-wire/request.ts'
import { type BlockDevice } from '../block-device.ts'
import { offersFua } from './transmission-flags.ts'

/** What one connection may ask of its export. */
export interface RequestRules {
  readonly device: BlockDevice
  readonly readOnly: boolean
  readonly structured: boolean
  readonly allocation: boolean
}

export interface Refusal {
  /** One of `NbdError`. */
  readonly error: number
  readonly text: string
}

/** True for the commands that change what the export holds. */
export const isChange = (command: number): boolean =>
  command === Command.write || command === Command.trim || command === Command.writeZeroes

/**
 * Checks a request before any of its numbers is used.
 * @returns null when it may be served
 */
export function refusalOfRequest(header: RequestHeader, rules: RequestRules): Refusal | null {
  const { command, flags, offset, length } = header
  const { device, readOnly } = rules
  const allowed = allowedFlags(command, rules)
  if (allowed === null) return { error: NbdError.invalid, text: `command ${command} is not offered` }
  if ((flags & ~allowed) !== 0) {
    return { error: NbdError.invalid, text: `flags 0x${flags.toString(16)} are not offered for this command` }
  }
  if (command === Command.flush) return null
  const change = isChange(command)
  if (change && (readOnly || !device.capabilities.writable)) {
    return { error: NbdError.permission, text: 'the export is read-only' }
  }
  if ((command === Command.read || command === Command.write) && length > PAYLOAD_BYTES_MAX) {
    return { error: NbdError.invalid, text: `${length} bytes in one request, above ${PAYLOAD_BYTES_MAX}` }
  }
  // Written so that no sum can overflow what a number holds exactly.
  if (offset > device.size || length > device.size - offset) {
    const growing = command === Command.write || command === Command.writeZeroes
    return {
      error: growing ? NbdError.noSpace : NbdError.invalid,
      text: `${length} bytes at ${offset} run off the end, which is at ${device.size}`,
    }
  }
  // The protocol leaves empty requests undefined. An empty read or write is harmless, but would leave a gap in a
  // sequence or an answer without extents.
  if (length === 0 && (command === Command.blockStatus || (change && device.capabilities.sequenced))) {
    return { error: NbdError.invalid, text: 'an empty request' }
  }
  return null
}

/** Flags that may come with a command; null when the command itself was not offered. */
function allowedFlags(command: number, rules: RequestRules): number | null {
  const { capabilities } = rules.device
  // By the protocol FUA, once offered, may come with every command; only changes have anything to make durable.
  const fua = offersFua(capabilities) ? Flag.fua : 0
  switch (command) {
    case Command.read:
      return fua | (rules.structured ? Flag.dontFragment : 0)
    case Command.write:
    case Command.cache:
      return fua
    case Command.flush:
      return capabilities.flush ? fua : null
    case Command.trim:
      return capabilities.trim ? fua : null
    case Command.writeZeroes:
      return capabilities.zero ? fua | Flag.noHole | (capabilities.fastZero ? Flag.fastZero : 0) : null
    case Command.blockStatus:
      return rules.allocation ? fua | Flag.requestOne : null
    default:
      return null
  }
}
