import { type Caller } from '../../trust/caller.ts'
import { type BlockDevice, type BlockDeviceCapabilities } from '../block-device.ts'
import { type CloseReason } from './close-reason.ts'
import { type DurabilityMode } from './durability-policy.ts'

/** A connection, as the log names it. */
export interface ConnectionInfo {
  /** Number of the connection within its server, from 1; names it in the log. */
  readonly id: number
  /** The socket's path or `address:port` through which it came; empty for a socket that was handed in. */
  readonly listener: string
  readonly caller: Caller
}

export interface OpenRequest {
  /** As the client sent it. tapdisk sends a constant name that ends in a NUL. */
  readonly name: string
  /** EXPORT_NAME cannot be refused with a reason: the connection just closes. */
  readonly convention: 'go' | 'export-name'
  /** Who asks: its connection's caller. */
  readonly caller: Caller
  readonly connection: ConnectionInfo
}

/** What a client may know of an export without opening it. */
export interface ExportDescription {
  /** In bytes. */
  readonly size: number
  readonly readOnly: boolean
  readonly capabilities: BlockDeviceCapabilities
}

/** An export in use by one connection. */
export interface OpenedExport {
  readonly device: BlockDevice
  /** True: changes are refused, whatever the device can do. */
  readonly readOnly: boolean
  readonly durability: DurabilityMode
  /**
   * Settles, with the reason in words, when the export is taken away from its connection: then the connection breaks off
   * at once, and requests under way get no answer.
   */
  readonly revoked?: Promise<string>
  /**
   * Whether what the device has answered may be told now. Asked when it was held up between the two, as it is when the
   * process is stopped; while it may not be told it waits.
   */
  readonly mayAnswer?: () => boolean
  /**
   * Called once, when the connection is over and every call that it made to the device has ended. The device is the
   * resolver's: it is closed here or stays open for the next connection.
   */
  closed(reason: CloseReason): Promise<void> | void
}

/** Knows the exports behind a listener. Each method may reject with a XosanError, whose sentence the client sees. */
export interface ExportResolver {
  /** Opens an export for a connection; may take long, for instance to drain an earlier session. */
  open(request: OpenRequest): Promise<OpenedExport>
  /** Describes an export; changes nothing anywhere. */
  info(name: string): Promise<ExportDescription>
  /** Names to show to who asks for a list; may leave out what nobody need know. */
  list(): Promise<readonly string[]>
}
