import { type SrId, type VolumeKey } from '../../core/units.ts'

/** What must survive the process: which volumes are attached here, and which of them are activated. */
export interface Attachment {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly activated: boolean
}

/** Where the attachments are kept. */
export interface AttachmentStore {
  load(): Promise<readonly Attachment[]>
  /** Durable when it returns. */
  save(attachments: readonly Attachment[]): Promise<void>
}
