//! The promises of `tidelog::promises`, each broken on purpose. The table there names the tests of each row.
//!
//! The sweeps are bounded so that the whole takes a minute or two; `TIDELOG_SWEEP=full cargo test --release --all-features
//! --test promises` runs every case, in a minute or two on two cores. What is drawn is drawn from seeds, which stand in the
//! messages.
//!
//! A promise is only as good as the test that breaks. Each of these mistakes was planted by hand, in the function named,
//! and turned the test red (and others):
//!
//! | mistake                                                   | red                                                               |
//! |-----------------------------------------------------------|-------------------------------------------------------------------|
//! | acknowledge before sync (`Partition::sync_files`)         | `crashes::a_power_cut_takes_nothing_from_a_sync_topic_that_was_delivered_or_seen` |
//! | no directory sync at a roll (`Partition::sync_files`)     | `syncs::nothing_of_a_segment_is_promised_before_its_name_is_durable` |
//! | no directory sync at creation (`Catalog::create`)         | `sweeps::wherever_the_machine_stops_recovery_keeps_what_was_promised` |
//! | a sync error ignored (`Partition::lead_sync`)             | `syncs::after_a_failed_sync_nothing_is_acknowledged_and_the_partition_takes_nothing_until_it_is_reopened` |
//! | a sync retried (`Partition::sync_files`)                  | `syncs::reopening_after_a_failed_sync_writes_again_what_it_keeps` |
//! | no dirtying again (`Recovery::make_durable`)              | `syncs::a_page_that_is_lost_in_background_write_back_is_never_declared_durable` |
//! | stop at the first bad batch (`Hole::step_over`)           | `rot::corrupt_names_partition_offsets_file_and_position_and_the_consumer_decides_to_go_on` |
//! | no tail wipe (`Recovery::cut`)                            | `crashes::what_recovery_cut_does_not_come_back` |
//! | no epoch (`Walk::step_on`)                                | `rot::bytes_of_an_earlier_life_behind_newer_ones_are_not_taken_for_records` |
//! | length unchecked (`Batch::at`)                            | `rot::hostile_bytes_in_any_file_are_an_error_and_never_a_panic_or_a_wrong_record` |
//! | checksum unchecked (`Batch::verify`)                      | `rot::every_byte_of_a_segment_that_holds_something_is_watched_over` |
//! | no end recorded at closing (`Catalog::close`)             | `rot::the_last_page_with_the_marker_of_the_closing_is_missed_too` |
//! | identity of a segment unchecked (`read_head`)             | `rot::a_segment_of_another_partition_topic_log_or_time_is_refused_reported_and_left_alone` |
//! | a lost end goes on at the witness (`Recovery::behind`)    | `rot::a_lost_end_goes_on_behind_all_that_can_have_been_given_since_the_log_was_closed` |
//! | a rolled marker proves no name (`Recovery::judge`)        | `rot::a_segment_that_is_gone_behind_a_rolled_one_takes_no_later_segment_with_it` |
//! | no rolled marker behind the end (`Recovery::scan`)        | `rot::what_a_rolled_segment_lost_is_damage_also_if_nothing_else_says_that_it_was_synced` |
//! | a rolled segment is torn (`Recovery::judge_scan`)         | `rot::a_marker_that_is_damaged_before_the_one_of_the_roll_does_not_hide_that_the_successor_is_gone` |
//! | sealed segments take any epoch (`Segment::sealed`)        | `rot::a_batch_older_than_its_segment_is_none_whoever_looks` |
//! | a copying read maps (`Slot::get`)                         | `processes::what_was_copied_to_be_read_is_there_whatever_becomes_of_the_file`, `processes::what_the_disk_does_not_give_is_an_error_of_a_copying_read` |
//! | no reading without a catalog (`Catalog::open_read_only`)  | `lost_catalog::without_its_catalog_a_log_is_read_as_the_directories_say_and_nothing_is_written` |
//! | no reserve (`Reserve::keep`)                              | `space::a_log_on_a_full_disk_opens_again_and_again_and_groups_move_on` |
//! | damaged commits believed (`Group::committed`)             | `groups::commits_that_are_gone_with_their_page_file_or_directory_are_missed` |
//! | no fork guard (`ForkGuard::is_child`)                     | `processes::in_a_forked_child_every_call_is_refused_drops_do_nothing_and_the_parent_is_unharmed` |

mod clocks;
mod crashes;
mod files;
mod groups;
mod lost_catalog;
mod panics;
mod processes;
mod rot;
mod shared;
mod space;
mod sweeps;
mod syncs;
