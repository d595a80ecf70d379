/* J10 */
#include "fault/fault_disk.h"
void j10_damage(void)
{
}
void j10_damage_running(void)
{
}
