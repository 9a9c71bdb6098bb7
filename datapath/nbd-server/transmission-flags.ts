import { TransmissionFlag as Flag } from '../../core/nbd-wire/constants.ts'
import { type BlockDeviceCapabilities } from '../block-device.ts'

/**
 * What a server offers for an export, as the 16 bits of the protocol.
 * @param structured whether the client takes structured replies
 */
export function transmissionFlags(
  capabilities: BlockDeviceCapabilities,
  readOnly: boolean,
  structured: boolean
): number {
  const writable = capabilities.writable && !readOnly
  return (
    Flag.hasFlags |
    Flag.sendCache |
    (writable ? 0 : Flag.readOnly) |
    (capabilities.flush ? Flag.sendFlush : 0) |
    (writable && offersFua(capabilities) ? Flag.sendFua : 0) |
    (writable && capabilities.trim ? Flag.sendTrim : 0) |
    (writable && capabilities.zero ? Flag.sendWriteZeroes : 0) |
    (writable && capabilities.zero && capabilities.fastZero ? Flag.sendFastZero : 0) |
    (structured ? Flag.sendDontFragment : 0) |
    (capabilities.multiConnection ? Flag.canMultiConnection : 0)
  )
}

/** A device without FUA of its own gets a flush after the change. */
export const offersFua = (capabilities: BlockDeviceCapabilities): boolean =>
  capabilities.fua || capabilities.flush
